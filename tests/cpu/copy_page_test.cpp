// copy_pages against the reference: rows, gaps, pairs of -1, more pages than one task has.
#include "cpu/copy_page.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "conformance/random.hpp"
#include "cpu/backend.hpp"
#include "reference/copy_pages.hpp"

namespace flashmla::cpu::test {
namespace {

struct Caches {
  explicit Caches(core::CopyPagesCall const& shape) : call(shape), memory(static_cast<size_t>(kLayers)), views(kLayers) {
    conformance::Random random(1);
    for (size_t layer = 0; layer < memory.size(); ++layer) {
      memory[layer].resize(static_cast<size_t>(call.num_pages * call.page_stride * call.elem_bytes));
      for (unsigned char& byte : memory[layer]) byte = static_cast<unsigned char>(random.next());
      views[layer].data = memory[layer].data();
    }
    call.caches = views.data();
    call.num_caches = kLayers;
  }
  static constexpr int64_t kLayers = 3;
  core::CopyPagesCall call;
  std::vector<std::vector<unsigned char>> memory;
  std::vector<flashmla_view> views;
};

core::CopyPagesCall shape_of(int64_t elem_bytes, int64_t outer, int64_t inner, int64_t width) {
  core::CopyPagesCall call;
  call.elem_bytes = elem_bytes;
  call.num_pages = 30;
  call.rows[0] = outer, call.rows[1] = inner, call.width = width;
  call.row_stride[1] = width + 3;
  call.row_stride[0] = inner * call.row_stride[1] + 5;
  call.page_stride = outer * call.row_stride[0] + 7;
  return call;
}

TEST(CopyPages, AgreesWithTheReference) {
  std::vector<flashmla_page_copy> copies;
  for (int32_t i = 0; i < 15; ++i) copies.push_back(i % 4 == 2 ? flashmla_page_copy{-1, -1} : flashmla_page_copy{2 * (i / 2), 2 * i + 1});
  for (core::CopyPagesCall shape : {shape_of(2, 1, 1, 576), shape_of(2, 4, 1, 576), shape_of(1, 3, 2, 17), shape_of(4, 1, 5, 1)}) {
    shape.copies = copies.data();
    shape.num_copies = static_cast<int64_t>(copies.size());
    Caches got(shape), want(shape);
    make_backend()->copy_pages(got.call, nullptr);
    reference::copy_pages(want.call);
    EXPECT_EQ(got.memory, want.memory);
    EXPECT_NE(got.memory, Caches(shape).memory);
  }
}

}  // namespace
}  // namespace flashmla::cpu::test
