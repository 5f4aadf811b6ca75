#include "reference/append.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <numeric>
#include <vector>

namespace flashmla::reference {
namespace {

/// A cache of three pages of two tokens, 10 elements of padding behind each page; numbers that name their source.
struct TinyAppend {
  std::vector<uint16_t> tokens = std::vector<uint16_t>(4 * 576), cache = std::vector<uint16_t>(3 * kPageStride, 0xffff);
  std::vector<int64_t> slots;
  static constexpr int64_t kPageStride = 2 * 576 + 10;

  explicit TinyAppend(std::vector<int64_t> s) : slots(std::move(s)) { std::iota(tokens.begin(), tokens.end(), uint16_t{1}); }

  std::vector<flashmla_fault> append() {
    core::AppendCall call;
    call.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
    call.tokens = static_cast<int64_t>(slots.size());
    call.ckv = tokens.data(), call.kpe = tokens.data() + 512;
    call.ckv_token_stride = call.kpe_token_stride = 576;
    call.slot_mapping = slots.data();
    call.cache = cache.data();
    call.num_pages = 3, call.page_tokens = 2, call.page_stride = kPageStride, call.token_stride = 576;
    return reference::append(call);
  }
};

TEST(Append, TokensGoToTheirSlotsAndNothingElseChanges) {
  TinyAppend tiny({5, -1, 0, 3});
  EXPECT_TRUE(tiny.append().empty());
  std::vector<uint16_t> expected(tiny.cache.size(), 0xffff);
  for (auto const& [token, place] :
       {std::pair{0, 2 * TinyAppend::kPageStride + 576}, std::pair{2, int64_t{0}}, std::pair{3, TinyAppend::kPageStride + 576}})
    std::copy_n(tiny.tokens.begin() + token * 576, 576, expected.begin() + place);
  EXPECT_EQ(tiny.cache, expected);
}

TEST(Append, SlotsOutsideTheCacheAreSkippedAndNamed) {
  TinyAppend tiny({6, 1, -2, int64_t{1} << 40});
  std::vector<flashmla_fault> const found = tiny.append();
  ASSERT_EQ(found.size(), 3u);
  int32_t const positions[] = {0, 2, 3}, values[] = {6, -2, INT_MAX};
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(found[i].code, FLASHMLA_FAULT_SLOT);
    EXPECT_EQ(found[i].position, positions[i]);
    EXPECT_EQ(found[i].value, values[i]);
  }
  EXPECT_EQ(tiny.cache[576], tiny.tokens[576]);
  EXPECT_EQ(std::count(tiny.cache.begin(), tiny.cache.end(), 0xffff), static_cast<ptrdiff_t>(tiny.cache.size()) - 576);
}

}  // namespace
}  // namespace flashmla::reference
