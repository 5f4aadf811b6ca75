// A serving engine in miniature: requests arrive, take pages, decode one token a step in every layer, finish and give
// their pages back. A request for several answers forks: they share the pages of the prompt. What a real engine adds is a
// model around the attention call, a GPU and a stream.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <flashmla/flashmla.hpp>
#include <vector>

namespace {

using namespace flashmla;

constexpr int kHeads = 16, kQkDim = 576, kLatent = 512, kPageTokens = 64;
constexpr int kLayers = 2, kNumPages = 24, kMaxBatch = 4, kTablePages = 16;

struct Request {
  int prompt_tokens;
  int output_tokens;
  int num_answers = 1;
  int kv_len = 0;                // tokens in the cache
  std::vector<int32_t> pages{};  // the same ids in every layer
  [[nodiscard]] int64_t pages_for(int tokens) const { return (tokens + kPageTokens - 1) / kPageTokens; }
  [[nodiscard]] int64_t slot(int token) const { return int64_t{pages[token / kPageTokens]} * kPageTokens + token % kPageTokens; }
  [[nodiscard]] bool is_finished() const { return kv_len == prompt_tokens + output_tokens; }
};

class Engine {
 public:
  Engine()
      : plan_(DecodePlan::make(Problem::decode(kHeads, kKvBf16_576, kMaxBatch), Target(kCpu))),
        schedule_(plan_.schedule_bytes()),
        workspace_(plan_.workspace_bytes()),
        caches_(kLayers, std::vector<uint16_t>(size_t{kNumPages} * kPageTokens * kQkDim)) {
    plan_.reset(workspace_.view());
  }

  /// Takes a waiting request in if the batch and the pool have room for all that it will ever need.
  bool admit(Request request) {
    int64_t const needed = request.pages_for(request.prompt_tokens + request.output_tokens);
    int64_t const shared = request.prompt_tokens / kPageTokens;
    if (running_.size() + request.num_answers > kMaxBatch) return false;
    if (pool_.num_free() < shared + request.num_answers * (needed - shared)) return false;
    request.pages = pool_.allocate(needed);
    append(request, request.prompt_tokens);  // stands for the prefill
    for (int i = 1; i < request.num_answers; ++i) running_.push_back(fork(request));
    running_.push_back(std::move(request));
    return true;
  }

  /// One token for every running request. Returns how many were decoded.
  int step() {
    int const batch = static_cast<int>(running_.size());
    std::vector<int32_t> kv_len, page_table(size_t{kMaxBatch} * kTablePages, -1);
    for (int i = 0; i < batch; ++i) {
      append(running_[i], 1);
      kv_len.push_back(running_[i].kv_len);
      std::copy(running_[i].pages.begin(), running_[i].pages.end(), page_table.begin() + i * kTablePages);
    }
    Lengths const lengths(View::contiguous(kv_len.data(), kInt32, kCpu, {batch}));
    plan_.update(lengths, schedule_.view());
    DecodeArgs args;
    args.page_table = View::contiguous(page_table.data(), kInt32, kCpu, {batch, kTablePages});
    args.lengths = lengths;
    for (std::vector<uint16_t>& cache : caches_) attend(args, cache, batch);
    retire();
    return batch;
  }

  [[nodiscard]] bool is_idle() const { return running_.empty(); }
  [[nodiscard]] int64_t num_free_pages() const { return pool_.num_free(); }
  [[nodiscard]] bool found_fault() const { return plan_.fault(workspace_.view()).has_value(); }

 private:
  /// Another answer to the same prompt. A last page that is not full is copied, since both sides will write it.
  Request fork(Request const& request) {
    Fork fork = pool_.fork(request.pages, request.kv_len, kPageTokens);
    std::vector<View> caches;
    for (std::vector<uint16_t>& cache : caches_) caches.push_back(cache_view(cache));
    copy_pages(caches, fork.copies);
    std::vector<int32_t> const own = pool_.allocate(static_cast<int64_t>(request.pages.size() - fork.pages.size()));
    fork.pages.insert(fork.pages.end(), own.begin(), own.end());
    Request answer = request;
    answer.pages = std::move(fork.pages);
    return answer;
  }

  /// New tokens of one request into their slots of every layer's cache. A model would project them from hidden states.
  void append(Request& request, int tokens) {
    std::vector<uint16_t> const kv(static_cast<size_t>(tokens) * kQkDim, 0x3f80);
    std::vector<int64_t> slots;
    for (int i = 0; i < tokens; ++i) slots.push_back(request.slot(request.kv_len + i));
    AppendArgs args;
    args.kv_format = kKvBf16_576;
    args.kv = View::contiguous(kv.data(), kBf16, kCpu, {tokens, kQkDim});
    args.slot_mapping = View::contiguous(slots.data(), kInt64, kCpu, {tokens});
    for (std::vector<uint16_t>& cache : caches_) {
      args.cache = cache_view(cache);
      flashmla::append(args);
    }
    request.kv_len += tokens;
  }

  void attend(DecodeArgs& args, std::vector<uint16_t> const& cache, int batch) {
    std::vector<uint16_t> const q(static_cast<size_t>(batch) * kHeads * kQkDim, 0x3c00);
    std::vector<uint16_t> out(static_cast<size_t>(batch) * kHeads * kLatent);
    args.cache = cache_view(cache);
    args.q = View::contiguous(q.data(), kBf16, kCpu, {batch, 1, kHeads, kQkDim});
    args.out = View::contiguous(out.data(), kBf16, kCpu, {batch, 1, kHeads, kLatent});
    plan_.run(args, schedule_.view(), workspace_.view());
  }

  void retire() {
    for (Request& request : running_)
      if (request.is_finished()) pool_.free(request.pages);
    std::erase_if(running_, [](Request const& request) { return request.is_finished(); });
  }

  static View cache_view(std::vector<uint16_t> const& cache) {
    return View::contiguous(cache.data(), kBf16, kCpu, {kNumPages, kPageTokens, 1, kQkDim});
  }

  DecodePlan plan_;
  HostBuffer schedule_, workspace_;
  PagePool pool_{kNumPages};
  std::vector<std::vector<uint16_t>> caches_;  // [kLayers][kNumPages, kPageTokens, 1, kQkDim]
  std::vector<Request> running_;
};

}  // namespace

int main() {
  std::deque<Request> waiting = {{500, 40}, {70, 10}, {300, 30, 2}, {64, 5}, {900, 20}, {10, 50}};
  Engine engine;
  int steps = 0, tokens = 0;
  while (!waiting.empty() || !engine.is_idle()) {
    while (!waiting.empty() && engine.admit(waiting.front())) waiting.pop_front();
    int const batch = engine.step();
    tokens += batch;
    std::printf("step %3d: %d requests, %2d pages free\n", ++steps, batch, static_cast<int>(engine.num_free_pages()));
  }
  std::printf("%d tokens in %d steps, every page back in the pool\n", tokens, steps);
  return tokens == 185 && engine.num_free_pages() == kNumPages && !engine.found_fault() ? 0 : 1;
}
