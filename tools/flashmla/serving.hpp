// The scheduler of a serving engine, over a paged cache: who is in the batch of each step, and which pages they hold.
//
// Each step makes one token for every running request. `begin_step` first lets running requests grow, oldest first: the
// new token needs a page when the last one is full. When no page is left the youngest request gives all of its pages
// back and goes to the head of the queue, to be resumed with what it has made so far. Then waiting requests that have
// arrived are admitted, in trace order, while the batch limit and the pages allow it; one percent of the pages is held
// back for growth. `end_step` lets requests that made their last token leave. A request that could never finish in this
// cache is turned away at once: any request that was admitted can then finish alone, so the loop always ends.
//
// Where the trace says which prompts begin alike, a request shares the pages of the prompt it has in common with others
// (prefix_cache.hpp), running ones and those that left pages which nobody has needed since.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <flashmla/page_pool.hpp>
#include <vector>

#include "tools/flashmla/prefix_cache.hpp"
#include "tools/flashmla/trace.hpp"

namespace flashmla::tools {

struct ServingLimits {
  int64_t num_pages = 0;
  int64_t page_tokens = 64;
  int64_t max_batch = 1;
  bool share_prefixes = true;
};

/// A request in the batch.
struct Running {
  size_t index = 0;       // in the trace
  int64_t kv_tokens = 0;  // in the cache, this step's token among them
  int64_t tokens_left = 0;
  std::vector<int32_t> pages;  // shared ones first; the page that this step writes is never shared
  size_t num_links = 0;        // of the prefix cache, that it uses

  /// Where this step's token goes: page * page_tokens + offset.
  [[nodiscard]] int64_t new_slot(int64_t page_tokens) const {
    int64_t const position = kv_tokens - 1;
    return pages[static_cast<size_t>(position / page_tokens)] * page_tokens + position % page_tokens;
  }
};

struct ServingCounts {
  int64_t admitted = 0;  // first admissions, not those after a preemption
  int64_t finished = 0;
  int64_t preempted = 0;  // preemptions; a request may count several times
  int64_t rejected = 0;   // longer than the whole cache
  int64_t empty = 0;      // asked for no token at all
  int64_t tokens = 0;     // made

  // Of first admissions: prompts, and what of them was already there.
  int64_t with_prefix = 0;    // requests that found a beginning of their prompt
  int64_t prompt_tokens = 0;  // of all admitted requests
  int64_t prefix_tokens = 0;  // of those, in pages that are shared or were copied
  int64_t copied_pages = 0;
};

class ServingLoop {
 public:
  ServingLoop(std::vector<TraceRequest> requests, ServingLimits const& limits);

  /// The batch of this step; empty when nothing has arrived by `now_s` or everything is done. Call end_step after each.
  std::vector<Running> const& begin_step(double now_s);
  void end_step();

  /// Nothing runs and nothing waits.
  [[nodiscard]] bool finished() const { return running_.empty() && waiting_.empty(); }
  /// When the head of the queue arrives; what an idle engine waits for.
  [[nodiscard]] double next_arrival_s() const;

  /// Tokens that will have been made when everything is done.
  [[nodiscard]] int64_t all_tokens() const { return all_tokens_; }
  [[nodiscard]] ServingCounts const& counts() const { return counts_; }
  [[nodiscard]] int64_t waiting() const { return static_cast<int64_t>(waiting_.size()); }
  /// Copies that the batch of this step needs before it writes. In this order: a later one may read what an earlier one wrote.
  [[nodiscard]] std::vector<PageCopy> const& copies() const { return copies_; }
  /// Pages that running requests hold; a shared one counts once.
  [[nodiscard]] int64_t pages_in_use() const { return pool_.num_pages() - pool_.num_free() - pages_kept(); }
  /// Pages of prompts that nobody runs, kept until they are needed.
  [[nodiscard]] int64_t pages_kept() const { return prefixes_.num_idle_pages(); }
  /// Pages of the longest request that will ever run: the width of the page table.
  [[nodiscard]] int64_t max_request_pages() const { return max_request_pages_; }

 private:
  struct Waiting {
    size_t index;
    double arrival_s;
    int64_t context_tokens;
    int64_t tokens_left;
    bool resumed;
  };

  [[nodiscard]] int64_t pages_for(int64_t tokens) const { return (tokens + limits_.page_tokens - 1) / limits_.page_tokens; }
  bool allocate(std::vector<int32_t>& pages, int64_t count);
  void release(Running& request);
  void preempt_youngest();
  bool grow_running();
  void admit(double now_s);
  bool admit_next();

  std::vector<TraceRequest> requests_;  // those of the trace; without prefix ids when prefixes are not shared
  ServingLimits limits_;
  PagePool pool_;
  PrefixCache prefixes_;
  std::vector<PageCopy> copies_;
  std::deque<Waiting> waiting_;
  std::vector<Running> running_;  // oldest first
  ServingCounts counts_;
  int64_t max_request_pages_ = 1;
  int64_t all_tokens_ = 0;
};

}  // namespace flashmla::tools
