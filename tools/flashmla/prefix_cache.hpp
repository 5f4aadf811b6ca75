// Prompts that are already in the pages of a cache: what a new request need not keep a second time.
//
// A prompt is a chain of blocks of kPrefixBlockTokens tokens, named by ids of the trace; equal ids mean an equal prompt up
// to the block's end. Each block that is known holds one reference to the pages it fills: a page belongs to the block with
// the page's last token, so blocks have no page in common. A request shares the pages of the leading blocks it finds; they
// are full, and nobody writes them again.
//
// A page that the end of a prompt leaves half full is a link of its own at the end of the chain, the tail. The request that
// brought it goes on writing behind the prompt, so others take a copy (PagePool::fork).
//
// Links that no running request uses stay until their pages are needed; the least recently used goes first, and of one
// prompt the end before the beginning. Who uses a link uses all links before it: no chain has a gap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <flashmla/page_pool.hpp>
#include <list>
#include <unordered_map>
#include <vector>

#include "tools/flashmla/trace.hpp"

namespace flashmla::tools {

class PrefixCache {
 public:
  /// `pool` must outlive it.
  PrefixCache(PagePool& pool, int64_t page_tokens) : pool_(pool), page_tokens_(page_tokens) {}
  PrefixCache(PrefixCache const&) = delete;
  PrefixCache& operator=(PrefixCache const&) = delete;

  /// The known beginning of a prompt: what PagePool::fork makes the new request's first pages from.
  struct Prefix {
    int64_t tokens = 0;
    std::vector<int32_t> pages;
  };
  [[nodiscard]] Prefix find(TraceRequest const& request) const;

  /// Uses the leading blocks that are known, so that they stay; returns how many links that are.
  size_t acquire(TraceRequest const& request);
  /// Makes the rest of a prompt known, from the pages of the request that runs it and uses `num_links` so far. Returns how
  /// many links it uses now.
  size_t insert(TraceRequest const& request, std::vector<int32_t> const& pages, size_t num_links);
  /// The request uses its first `num_links` links no more.
  void release(TraceRequest const& request, size_t num_links);

  /// Pages that only links without users hold.
  [[nodiscard]] int64_t num_idle_pages() const { return num_idle_pages_; }
  /// Gives idle pages back to the pool until it has `count` free ones, or nothing is idle.
  void make_room(int64_t count);

 private:
  struct Link {
    int64_t end_tokens;  // of the prompt, where the link ends
    std::vector<int32_t> pages;
    int64_t users = 0;
    std::list<int64_t>::iterator place;  // in idle_, while nobody uses it
  };
  // Link i of a prompt is block i, and the one behind the blocks is the tail.
  [[nodiscard]] static int64_t key_of(TraceRequest const& request, size_t link_idx);
  [[nodiscard]] static int64_t end_of(TraceRequest const& request, size_t link_idx);
  [[nodiscard]] Link const* known(TraceRequest const& request, size_t link_idx) const;
  [[nodiscard]] std::vector<int32_t> pages_of(TraceRequest const& request, size_t link_idx, std::vector<int32_t> const& pages) const;

  PagePool& pool_;
  int64_t page_tokens_;
  std::unordered_map<int64_t, Link> links_;
  std::list<int64_t> idle_;  // keys; the least recently used first
  int64_t num_idle_pages_ = 0;
};

}  // namespace flashmla::tools
