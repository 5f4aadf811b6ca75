#include "tools/flashmla/prefix_cache.hpp"

#include <gtest/gtest.h>

namespace flashmla::tools {
namespace {

using Pages = std::vector<int32_t>;

TraceRequest prompt(int64_t tokens, std::vector<int32_t> ids) { return {0, tokens, 1, std::move(ids)}; }

TEST(PrefixCache, FindsTheBeginningThatIsKnown) {
  PagePool pool(100);
  PrefixCache cache(pool, 256);
  TraceRequest const first = prompt(1100, {1, 2, 3});
  EXPECT_EQ(cache.find(first).tokens, 0);
  Pages const pages = pool.allocate(5);
  EXPECT_EQ(cache.insert(first, pages, cache.acquire(first)), 4u) << "3 blocks and a tail";

  PrefixCache::Prefix const other = cache.find(prompt(2000, {1, 2, 9, 3}));
  EXPECT_EQ(other.tokens, 1024);
  EXPECT_EQ(other.pages, (Pages{0, 1, 2, 3}));
  PrefixCache::Prefix const same = cache.find(first);
  EXPECT_EQ(same.tokens, 1100);
  EXPECT_EQ(same.pages, pages);
  EXPECT_EQ(cache.find(prompt(1536, {1, 2, 3})).tokens, 1024) << "a block of another length is another block";
  EXPECT_EQ(cache.find(prompt(1100, {2, 1, 3})).tokens, 0) << "another order is another prompt";
  EXPECT_EQ(cache.find(prompt(1100, {})).tokens, 0);
}

TEST(PrefixCache, APageBelongsToTheBlockWithItsLastToken) {
  PagePool pool(100);
  PrefixCache cache(pool, 200);  // 512 tokens are 2 pages and 112 tokens of the next; 1024 are 5 pages and 24 tokens
  TraceRequest const first = prompt(1400, {1, 2, 3});
  cache.insert(first, pool.allocate(8), 0);
  EXPECT_EQ(cache.find(prompt(600, {1, 8})).tokens, 400);
  EXPECT_EQ(cache.find(prompt(1100, {1, 2, 8})).tokens, 1000);
  EXPECT_EQ(cache.find(prompt(1100, {1, 2, 8})).pages, (Pages{0, 1, 2, 3, 4}));
  EXPECT_EQ(cache.find(first).tokens, 1400) << "seven whole pages and no tail";
}

TEST(PrefixCache, PagesLongerThanBlocks) {
  PagePool pool(100);
  PrefixCache cache(pool, 1024);
  cache.insert(prompt(3000, {1, 2, 3, 4, 5, 6}), pool.allocate(3), 0);
  EXPECT_EQ(cache.find(prompt(600, {1, 9})).tokens, 0);
  EXPECT_EQ(cache.find(prompt(2000, {1, 2, 3, 9})).tokens, 1024);
  EXPECT_EQ(cache.find(prompt(3000, {1, 2, 3, 4, 5, 6})).tokens, 3000);
}

TEST(PrefixCache, WhatIsUsedStaysAndTheRestGoesByUse) {
  PagePool pool(12);
  PrefixCache cache(pool, 256);
  TraceRequest const old = prompt(1024, {1, 2}), young = prompt(1024, {1, 3});
  Pages const old_pages = pool.allocate(4), added = pool.allocate(2);
  Pages const young_pages{old_pages[0], old_pages[1], added[0], added[1]};
  size_t const old_links = cache.insert(old, old_pages, cache.acquire(old));
  EXPECT_EQ(cache.acquire(young), 1u);
  pool.retain({old_pages[0], old_pages[1]});
  size_t const young_links = cache.insert(young, young_pages, 1);
  EXPECT_EQ(old_links, 2u);
  EXPECT_EQ(young_links, 2u);
  EXPECT_EQ(cache.num_idle_pages(), 0);
  cache.make_room(12);
  EXPECT_EQ(pool.num_free(), 6) << "everything is used";

  cache.release(old, old_links);
  pool.free(old_pages);
  EXPECT_EQ(cache.num_idle_pages(), 2) << "the second block; the first has another user";
  EXPECT_EQ(pool.num_free(), 6);
  cache.release(young, young_links);
  pool.free(young_pages);
  EXPECT_EQ(cache.num_idle_pages(), 6);

  cache.make_room(7);
  EXPECT_EQ(pool.num_free(), 8) << "the block that was left first";
  EXPECT_EQ(cache.find(old).tokens, 512);
  EXPECT_EQ(cache.find(young).tokens, 1024);
  cache.make_room(9);
  EXPECT_EQ(cache.find(young).tokens, 512) << "the end of a prompt goes before its beginning";
  cache.make_room(12);
  EXPECT_EQ(pool.num_free(), 12);
  EXPECT_EQ(cache.num_idle_pages(), 0);
  cache.make_room(13);
}

TEST(PrefixCache, AnIdThatMeansTwoThingsIsKnownOnce) {
  PagePool pool(20);
  PrefixCache cache(pool, 256);
  TraceRequest const first = prompt(1024, {1, 2}), confused = prompt(1536, {3, 1, 4});
  cache.insert(first, pool.allocate(4), 0);
  size_t const links = cache.insert(confused, pool.allocate(6), cache.acquire(confused));
  EXPECT_EQ(links, 1u) << "the block before the one that is taken";
  EXPECT_EQ(cache.find(confused).tokens, 512);
  cache.release(confused, links);
  cache.release(first, 2);
  EXPECT_EQ(cache.num_idle_pages(), 6);
}

}  // namespace
}  // namespace flashmla::tools
