// append, copy_pages and merge through the C++ API on the CPU. Numerics in depth: conformance.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <flashmla/ops.hpp>
#include <string>
#include <vector>

namespace flashmla {
namespace {

TEST(Append, TokensLandInTheirSlotsAndBadSlotsAreRecorded) {
  constexpr int64_t kTokens = 4, kPages = 2, kPageTokens = 4;
  std::vector<uint16_t> kv(kTokens * 576), cache(kPages * kPageTokens * 576, 7);
  for (int64_t t = 0; t < kTokens; ++t)
    for (int64_t i = 0; i < 576; ++i) kv[static_cast<size_t>(t * 576 + i)] = static_cast<uint16_t>(1000 * (t + 1) + i);
  std::vector<int64_t> const slots = {5, -1, 0, kPages * kPageTokens};
  std::vector<int32_t> fault(8, 0);
  AppendArgs args;
  args.kv_format = kKvBf16_576;
  args.kv = View::contiguous(kv.data(), kBf16, kCpu, {kTokens, 576});
  args.slot_mapping = View::contiguous(slots.data(), kInt64, kCpu, {kTokens});
  args.cache = View::contiguous(cache.data(), kBf16, kCpu, {kPages, kPageTokens, 576});
  args.fault = View::contiguous(fault.data(), kInt32, kCpu, {8});
  append(args);
  EXPECT_EQ(cache[5 * 576], 1000);
  EXPECT_EQ(cache[5 * 576 + 575], 1575);
  EXPECT_EQ(cache[0], 3000);
  EXPECT_EQ(cache[1 * 576], 7);
  EXPECT_EQ(cache[7 * 576], 7);
  EXPECT_EQ(fault[0], FLASHMLA_FAULT_SLOT);
  EXPECT_EQ(fault[2], 3);
  EXPECT_EQ(fault[3], kPages * kPageTokens);
}

TEST(Append, NoTokensIsANoOp) {
  std::vector<uint16_t> cache(4 * 576, 7);
  AppendArgs args;
  args.kv_format = kKvBf16_576;
  args.kv = View::contiguous(nullptr, kBf16, kCpu, {0, 576});
  args.slot_mapping = View::contiguous(nullptr, kInt64, kCpu, {0});
  args.cache = View::contiguous(cache.data(), kBf16, kCpu, {1, 4, 576});
  EXPECT_NO_THROW(append(args));
}

TEST(CopyPages, PagesAreCopiedInEveryCache) {
  constexpr int64_t kLayers = 3, kPages = 4, kPageElems = 16 * 576;
  std::vector<std::vector<uint16_t>> caches(kLayers, std::vector<uint16_t>(kPages * kPageElems));
  std::vector<View> views;
  for (size_t layer = 0; layer < caches.size(); ++layer) {
    for (size_t i = 0; i < caches[layer].size(); ++i) caches[layer][i] = static_cast<uint16_t>(layer * 10000 + i / kPageElems);
    views.push_back(View::contiguous(caches[layer].data(), kBf16, kCpu, {kPages, 16, 576}));
  }
  copy_pages(views, std::vector<PageCopy>{{3, 0}, {-1, -1}, {3, 2}});
  for (size_t layer = 0; layer < caches.size(); ++layer)
    for (size_t i = 0; i < caches[layer].size(); ++i)
      ASSERT_EQ(caches[layer][i], layer * 10000 + (i / kPageElems == 1 ? 1 : 3)) << "layer " << layer << ", element " << i;
  EXPECT_NO_THROW(copy_pages(views, {}));
}

TEST(CopyPages, AWrongPageIsAnErrorAndNothingIsCopied) {
  std::vector<uint16_t> cache(3 * 576);
  cache[576] = 1;
  std::vector<View> const views = {View::contiguous(cache.data(), kBf16, kCpu, {3, 1, 576})};
  try {
    copy_pages(views, std::vector<PageCopy>{{1, 0}, {1, 3}});
    FAIL() << "page 3 of 3";
  } catch (Error const& error) {
    EXPECT_EQ(std::string(error.what()), "copy_pages: copies[1].target: got 3, expected a page id in [0, 3), or a pair of -1");
  }
  EXPECT_EQ(cache[0], 0);
}

TEST(Merge, PartsAreWeighedByTheirLse) {
  constexpr int64_t kParts = 3, kDim = 8;
  std::vector<float> partial(kParts * kDim), out(kDim), lse(1);
  for (int64_t i = 0; i < kParts * kDim; ++i) partial[static_cast<size_t>(i)] = static_cast<float>(i / kDim + 1);
  std::vector<float> const partial_lse = {std::log(1.0f), std::log(3.0f), -INFINITY};
  MergeArgs args;
  args.partial_out = View::contiguous(partial.data(), kFp32, kCpu, {kParts, 1, 1, kDim});
  args.partial_lse = View::contiguous(partial_lse.data(), kFp32, kCpu, {kParts, 1, 1});
  args.out = View::contiguous(out.data(), kFp32, kCpu, {1, 1, kDim});
  args.lse = View::contiguous(lse.data(), kFp32, kCpu, {1, 1});
  merge(args);
  EXPECT_NEAR(out[0], (1 * 1 + 3 * 2) / 4.0, 1e-6);
  EXPECT_NEAR(out[kDim - 1], (1 * 1 + 3 * 2) / 4.0, 1e-6);
  EXPECT_NEAR(lse[0], std::log(4.0), 1e-6);
}

TEST(Ops, NullsAreRefused) {
  EXPECT_EQ(flashmla_append(nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_copy_pages(nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(flashmla_merge(nullptr, nullptr), FLASHMLA_INVALID_ARGUMENT);
  EXPECT_EQ(std::string(flashmla_last_error()).rfind("merge: args: got null", 0), 0u);
}

TEST(Ops, ADeviceThatIsNotInTheBuildIsNamed) {
  MergeArgs args;
  Device const device = cuda_device(1000);
  void* const memory = reinterpret_cast<void*>(uintptr_t{1} << 40);
  args.partial_out = View::contiguous(memory, kFp32, device, {0, 1, 1, 8});
  args.partial_lse = View::contiguous(memory, kFp32, device, {0, 1, 1});
  args.out = View::contiguous(memory, kFp32, device, {1, 1, 8});
  flashmla_status const status = flashmla_merge(&args, nullptr);
  EXPECT_NE(status, FLASHMLA_OK);
  EXPECT_NE(std::string(flashmla_last_error()).find("cuda:1000"), std::string::npos) << flashmla_last_error();
  if (!FLASHMLA_WITH_CUDA) {
    EXPECT_EQ(status, FLASHMLA_UNSUPPORTED);
    EXPECT_NE(std::string(flashmla_last_error()).find("built without CUDA"), std::string::npos);
  }
}

}  // namespace
}  // namespace flashmla
