// Prompts that are already in the pages of a cache: see prefix_cache.hpp.
#include "tools/flashmla/prefix_cache.hpp"

#include <algorithm>

namespace flashmla::tools {

int64_t PrefixCache::key_of(TraceRequest const& request, size_t link_idx) {
  bool const is_tail = link_idx == request.prefix_ids.size();
  return 2 * int64_t{request.prefix_ids[link_idx - (is_tail ? 1 : 0)]} + (is_tail ? 1 : 0);
}

int64_t PrefixCache::end_of(TraceRequest const& request, size_t link_idx) {
  size_t const blocks = std::min(link_idx + 1, request.prefix_ids.size());
  return std::min(static_cast<int64_t>(blocks) * kPrefixBlockTokens, request.input_tokens);
}

/// Null when there is none, or when a trace uses an id for two things.
PrefixCache::Link const* PrefixCache::known(TraceRequest const& request, size_t link_idx) const {
  auto const found = links_.find(key_of(request, link_idx));
  return found != links_.end() && found->second.end_tokens == end_of(request, link_idx) ? &found->second : nullptr;
}

PrefixCache::Prefix PrefixCache::find(TraceRequest const& request) const {
  Prefix prefix;
  size_t const num_blocks = request.prefix_ids.size();
  for (size_t i = 0; num_blocks > 0 && i <= num_blocks; ++i) {
    Link const* const link = known(request, i);
    if (link == nullptr) break;
    prefix.pages.insert(prefix.pages.end(), link->pages.begin(), link->pages.end());
    prefix.tokens = i == num_blocks ? link->end_tokens : static_cast<int64_t>(prefix.pages.size()) * page_tokens_;
  }
  return prefix;
}

size_t PrefixCache::acquire(TraceRequest const& request) {
  size_t count = 0;
  while (count < request.prefix_ids.size() && known(request, count) != nullptr) {
    Link& link = links_.at(key_of(request, count++));
    if (link.users++ > 0) continue;
    idle_.erase(link.place);
    num_idle_pages_ -= static_cast<int64_t>(link.pages.size());
  }
  return count;
}

/// The pages of a request that link `link_idx` of its prompt owns.
std::vector<int32_t> PrefixCache::pages_of(TraceRequest const& request, size_t link_idx, std::vector<int32_t> const& pages) const {
  int64_t const end = end_of(request, link_idx), begin = link_idx == 0 ? 0 : end_of(request, link_idx - 1);
  bool const is_tail = link_idx == request.prefix_ids.size();
  int64_t const first = begin / page_tokens_, last = is_tail ? first + (end % page_tokens_ != 0 ? 1 : 0) : end / page_tokens_;
  return {pages.begin() + static_cast<std::ptrdiff_t>(first), pages.begin() + static_cast<std::ptrdiff_t>(last)};
}

size_t PrefixCache::insert(TraceRequest const& request, std::vector<int32_t> const& pages, size_t num_links) {
  size_t const num_blocks = request.prefix_ids.size();
  for (; num_blocks > 0 && num_links <= num_blocks; ++num_links) {
    Link link{end_of(request, num_links), pages_of(request, num_links, pages), 1, {}};
    if (num_links == num_blocks && link.pages.empty()) break;  // the prompt ends with a page
    auto const [place, is_new] = links_.try_emplace(key_of(request, num_links), std::move(link));
    if (!is_new) break;
    pool_.retain(place->second.pages);
  }
  return num_links;
}

void PrefixCache::release(TraceRequest const& request, size_t num_links) {
  while (num_links > 0) {
    int64_t const key = key_of(request, --num_links);
    Link& link = links_.at(key);
    if (--link.users > 0) continue;
    link.place = idle_.insert(idle_.end(), key);
    num_idle_pages_ += static_cast<int64_t>(link.pages.size());
  }
}

void PrefixCache::make_room(int64_t count) {
  while (pool_.num_free() < count && !idle_.empty()) {
    auto const link = links_.find(idle_.front());
    pool_.free(link->second.pages);
    num_idle_pages_ -= static_cast<int64_t>(link->second.pages.size());
    links_.erase(link);
    idle_.pop_front();
  }
}

}  // namespace flashmla::tools
