// Attention of two requests over a paged cache, on this machine's CPU. A GPU needs Target(cuda_device(0)) and its memory.
#include <cstdint>
#include <cstdio>
#include <flashmla/flashmla.hpp>
#include <vector>

int main() {
  using namespace flashmla;
  constexpr int kBatch = 2, kHeads = 16, kPages = 4, kPageTokens = 64, kTablePages = 2;
  constexpr uint16_t kOne = 0x3f80;  // 1.0 in BF16
  std::vector<uint16_t> const q(kBatch * kHeads * 576, kOne), cache(kPages * kPageTokens * 576, kOne);
  std::vector<int32_t> const page_table = {0, 2, 3, -1}, kv_len = {100, 64};
  std::vector<uint16_t> out(kBatch * kHeads * 512);

  auto const plan = DecodePlan::make(Problem::decode(kHeads, kKvBf16_576, kBatch), Target(kCpu));
  HostBuffer const schedule(plan.schedule_bytes()), workspace(plan.workspace_bytes());
  plan.reset(workspace.view());

  Lengths const lengths(View::contiguous(kv_len.data(), kInt32, kCpu, {kBatch}));
  plan.update(lengths, schedule.view());  // once a step

  DecodeArgs args;
  args.q = View::contiguous(q.data(), kBf16, kCpu, {kBatch, 1, kHeads, 576});
  args.cache = View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 1, 576});
  args.page_table = View::contiguous(page_table.data(), kInt32, kCpu, {kBatch, kTablePages});
  args.lengths = lengths;
  args.out = View::contiguous(out.data(), kBf16, kCpu, {kBatch, 1, kHeads, 512});
  plan.run(args, schedule.view(), workspace.view());  // once a layer

  std::printf("%s\nout[0] = 0x%04x\n", plan.describe().c_str(), out[0]);  // a mean of ones is one
  return out.front() == kOne && out.back() == kOne ? 0 : 1;
}
