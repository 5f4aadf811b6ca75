// The scheduler of a serving engine: see serving.hpp.
#include "tools/flashmla/serving.hpp"

#include <algorithm>
#include <utility>

namespace flashmla::tools {

ServingLoop::ServingLoop(std::vector<TraceRequest> requests, ServingLimits const& limits)
    : requests_(std::move(requests)), limits_(limits), pool_(limits.num_pages), prefixes_(pool_, limits.page_tokens) {
  for (size_t i = 0; i < requests_.size(); ++i) {
    TraceRequest& request = requests_[i];
    if (!limits.share_prefixes) request.prefix_ids.clear();
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
  prefixes_.make_room(count);
  if (pool_.num_free() < count) return false;
  std::vector<int32_t> const more = pool_.allocate(count);
  pages.insert(pages.end(), more.begin(), more.end());
  return true;
}

void ServingLoop::release(Running& request) {
  prefixes_.release(requests_[request.index], request.num_links);
  pool_.free(request.pages);
}

void ServingLoop::preempt_youngest() {
  Running youngest = std::move(running_.back());
  running_.pop_back();
  release(youngest);
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
    if (waiting_.front().arrival_s > now_s || !admit_next()) return;
    waiting_.pop_front();
  }
}

/// Takes the head of the queue into the batch, when there are pages for it and its next token.
bool ServingLoop::admit_next() {
  Waiting const& next = waiting_.front();
  TraceRequest const& source = requests_[next.index];
  size_t const num_links = prefixes_.acquire(source);  // from here on what it shares stays
  int64_t const shared = prefixes_.find(source).tokens / limits_.page_tokens;
  int64_t const added = pages_for(next.context_tokens + 1) - shared;
  int64_t const held_back = running_.empty() ? 0 : std::max<int64_t>(1, limits_.num_pages / 100);
  if (added + held_back > pool_.num_free() + prefixes_.num_idle_pages()) {
    prefixes_.release(source, num_links);
    return false;
  }
  prefixes_.make_room(added);
  PrefixCache::Prefix const prefix = prefixes_.find(source);  // a tail may just have gone
  Fork fork = pool_.fork(prefix.pages, prefix.tokens, limits_.page_tokens);
  Running request{next.index, next.context_tokens + 1, next.tokens_left, std::move(fork.pages), num_links};
  allocate(request.pages, added - static_cast<int64_t>(fork.copies.size()));
  request.num_links = prefixes_.insert(source, request.pages, num_links);
  copies_.insert(copies_.end(), fork.copies.begin(), fork.copies.end());
  counts_.copied_pages += static_cast<int64_t>(fork.copies.size());
  if (!next.resumed) {
    ++counts_.admitted;
    counts_.with_prefix += prefix.tokens > 0 ? 1 : 0;
    counts_.prompt_tokens += source.input_tokens;
    counts_.prefix_tokens += prefix.tokens;
  }
  running_.push_back(std::move(request));
  return true;
}

std::vector<Running> const& ServingLoop::begin_step(double now_s) {
  copies_.clear();
  // A step that ran out of pages admits nobody: the request that had to leave would come straight back.
  if (grow_running()) admit(now_s);
  return running_;
}

void ServingLoop::end_step() {
  for (Running& request : running_) {
    ++counts_.tokens;
    if (--request.tokens_left > 0) continue;
    release(request);
    ++counts_.finished;
  }
  std::erase_if(running_, [](Running const& request) { return request.tokens_left == 0; });
}

double ServingLoop::next_arrival_s() const { return waiting_.empty() ? 0 : waiting_.front().arrival_s; }

}  // namespace flashmla::tools
