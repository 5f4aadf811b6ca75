// The scheduler of a serving engine: see serving.hpp.
#include "tools/flashmla/serving.hpp"

#include <algorithm>
#include <utility>

namespace flashmla::tools {

ServingLoop::ServingLoop(std::vector<TraceRequest> const& requests, ServingLimits const& limits)
    : limits_(limits), pool_(limits.num_pages) {
  for (size_t i = 0; i < requests.size(); ++i) {
    TraceRequest const& request = requests[i];
    int64_t const pages = pages_for(request.input_tokens + request.output_tokens);
    if (request.output_tokens == 0) {
      ++counts_.empty;
    } else if (pages > limits.num_pages) {
      ++counts_.rejected;
    } else {
      max_request_pages_ = std::max(max_request_pages_, pages);
      all_tokens_ += request.output_tokens;
      waiting_.push_back({i, request.arrival_s, request.input_tokens, request.output_tokens, false});
    }
  }
}

bool ServingLoop::allocate(std::vector<int32_t>& pages, int64_t count) {
  if (pool_.num_free() < count) return false;
  std::vector<int32_t> const more = pool_.allocate(count);
  pages.insert(pages.end(), more.begin(), more.end());
  return true;
}

void ServingLoop::release(std::vector<int32_t>& pages) {
  pool_.free(pages);
  pages.clear();
}

void ServingLoop::preempt_youngest() {
  Running youngest = std::move(running_.back());
  running_.pop_back();
  release(youngest.pages);
  waiting_.push_front({youngest.index, 0.0, youngest.kv_tokens, youngest.tokens_left, true});
  ++counts_.preempted;
}

/// A place for one more token in every running request. False when some had to leave for it.
bool ServingLoop::grow_running() {
  bool enough = true;
  for (size_t i = 0; i < running_.size(); ++i) {
    // The youngest may be the request itself: then it leaves, and the loop is over.
    while (i < running_.size() && pages_for(running_[i].kv_tokens + 1) > static_cast<int64_t>(running_[i].pages.size()) &&
           !allocate(running_[i].pages, 1)) {
      preempt_youngest();
      enough = false;
    }
    if (i < running_.size()) ++running_[i].kv_tokens;
  }
  return enough;
}

void ServingLoop::admit(double now_s) {
  while (!waiting_.empty() && static_cast<int64_t>(running_.size()) < limits_.max_batch) {
    Waiting const& next = waiting_.front();
    if (next.arrival_s > now_s) return;
    int64_t const held_back = running_.empty() ? 0 : std::max<int64_t>(1, limits_.num_pages / 100);
    int64_t const pages = pages_for(next.context_tokens + 1);
    if (pages + held_back > pool_.num_free()) return;
    Running request{next.index, next.context_tokens + 1, next.tokens_left, {}};
    if (!allocate(request.pages, pages)) return;
    if (!next.resumed) ++counts_.admitted;
    waiting_.pop_front();
    running_.push_back(std::move(request));
  }
}

std::vector<Running> const& ServingLoop::begin_step(double now_s) {
  // A step that ran out of pages admits nobody: the request that had to leave would come straight back.
  if (grow_running()) admit(now_s);
  return running_;
}

void ServingLoop::end_step() {
  for (Running& request : running_) {
    ++counts_.tokens;
    if (--request.tokens_left > 0) continue;
    release(request.pages);
    ++counts_.finished;
  }
  std::erase_if(running_, [](Running const& request) { return request.tokens_left == 0; });
}

double ServingLoop::next_arrival_s() const { return waiting_.empty() ? 0 : waiting_.front().arrival_s; }

}  // namespace flashmla::tools
