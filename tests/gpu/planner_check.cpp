#include "gpu/planner_check.hpp"

#include <algorithm>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/split.hpp"
#include "cuda/decode_plan.hpp"
#include "cuda/kernels/plan_schedule.hpp"
#include "gpu/decode_setup.hpp"

namespace flashmla::test {
namespace {

void synchronize() { check_call(cudaStreamSynchronize(nullptr), "cudaStreamSynchronize"); }

}  // namespace

void check_device_planner(int count) {
  std::mt19937_64 engine(17);
  auto const below = [&](uint64_t n) { return static_cast<int32_t>(engine() % n); };
  DeviceArray<int32_t> kv_len(12001), q_offsets(12001);
  DeviceArray<char> schedule(core::schedule_bytes(cuda::kMaxWorkers));
  for (int i = 0; i < count; ++i) {
    int32_t const sizes[] = {1 + below(4), 1 + below(140), 1 + below(1100), 1 + below(12000), below(2)};
    int32_t const batch = sizes[below(5)], h_q = 1 + below(128), q_tokens = 1 + (below(3) == 0 ? below(16) : 0);
    core::PlanShape shape = cuda::plan_shape(1 << below(3), 1 + below(140));
    if (below(4) == 0) shape.tile_rows = 16;
    shape.kv_heads = h_q % 4 == 0 && below(4) == 0 ? 4 : 1;
    shape.part_cost = below(3) == 0 ? below(40) : shape.part_cost;
    int64_t const kinds[] = {1, 70, 4096, 131072, 1048577, int64_t{INT32_MAX}};
    int64_t const longest = kinds[below(6)];
    std::vector<int32_t> lens(static_cast<size_t>(batch));
    for (int32_t& length : lens) length = below(6) == 0 ? -below(3) : static_cast<int32_t>(engine() % static_cast<uint64_t>(longest));
    // Every other batch is ragged: requests of up to q_tokens, some of none, now and then with an offset that is junk.
    bool const is_ragged = below(2) == 0, has_junk = below(4) == 0;
    std::vector<int32_t> offsets{below(3)};
    for (int32_t r = 0; r < batch; ++r)
      offsets.push_back(offsets.back() + (below(3) == 0 ? 0 : below(static_cast<uint64_t>(q_tokens) + 1)));
    if (has_junk) offsets[static_cast<size_t>(below(offsets.size()))] = static_cast<int32_t>(engine());
    kv_len.upload(lens);
    q_offsets.upload(offsets);
    schedule.fill(0xa5);
    synchronize();
    cuda::launch_plan_schedule({shape, batch, q_tokens, h_q, kv_len.get(), is_ragged ? q_offsets.get() : nullptr, schedule.get()}, nullptr);
    synchronize();
    std::vector<char> want(schedule.size(), static_cast<char>(0xa5));
    core::make_schedule(shape, {batch, q_tokens, h_q, is_ragged ? offsets.data() : nullptr}, lens.data(), want.data());
    std::vector<char> const got = schedule.download();
    auto const at = std::mismatch(want.begin(), want.end(), got.begin()).first - want.begin();
    if (got == want) continue;
    throw std::runtime_error("schedule " + std::to_string(i) + " (batch " + std::to_string(batch) + ", workers " +
                             std::to_string(shape.max_workers) + ", longest " + std::to_string(longest) +
                             ") differs from the host's at byte " + std::to_string(at));
  }
}

}  // namespace flashmla::test
