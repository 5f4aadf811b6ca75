#include "reference/copy_pages.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace flashmla::reference {
namespace {

TEST(CopyPages, SourcesGoToTheirTargetsAndNothingElseChanges) {
  // Two layers of 4 pages; a page is 2 x 3 rows of 5 elements with gaps behind rows and pages.
  constexpr int64_t kPageStride = 50, kRowStride[2] = {23, 7};
  std::vector<uint16_t> memory(2 * 4 * kPageStride);
  std::iota(memory.begin(), memory.end(), uint16_t{1});
  std::vector<uint16_t> expected = memory;
  for (int64_t layer = 0; layer < 2; ++layer)
    for (auto const& [source, target] : {std::pair{3, 0}, std::pair{3, 1}})
      for (int64_t row = 0; row < 6; ++row)
        for (int64_t i = 0; i < 5; ++i) {
          int64_t const at = layer * 4 * kPageStride + row / 3 * kRowStride[0] + row % 3 * kRowStride[1] + i;
          expected[static_cast<size_t>(at + target * kPageStride)] = expected[static_cast<size_t>(at + source * kPageStride)];
        }

  std::vector<flashmla_view> caches(2);
  caches[0].data = memory.data();
  caches[1].data = memory.data() + 4 * kPageStride;
  std::vector<flashmla_page_copy> const copies = {{3, 0}, {-1, -1}, {3, 1}};
  core::CopyPagesCall call;
  call.caches = caches.data(), call.num_caches = 2;
  call.copies = copies.data(), call.num_copies = 3;
  call.elem_bytes = 2, call.num_pages = 4, call.page_stride = kPageStride;
  call.rows[0] = 2, call.rows[1] = 3, call.row_stride[0] = kRowStride[0], call.row_stride[1] = kRowStride[1], call.width = 5;
  copy_pages(call);
  EXPECT_EQ(memory, expected);
}

}  // namespace
}  // namespace flashmla::reference
