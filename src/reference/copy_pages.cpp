#include "reference/copy_pages.hpp"

namespace flashmla::reference {

void copy_pages(core::CopyPagesCall const& call) {
  for (int64_t layer = 0; layer < call.num_caches; ++layer) {
    unsigned char* const cache = static_cast<unsigned char*>(call.caches[layer].data);  // [num_pages, rows[0], rows[1], width]
    for (int64_t pair = 0; pair < call.num_copies; ++pair) {
      auto const [source, target] = call.copies[pair];
      if (source == -1 && target == -1) continue;
      for (int64_t i = 0; i < call.rows[0]; ++i)
        for (int64_t j = 0; j < call.rows[1]; ++j)
          for (int64_t byte = 0; byte < call.width * call.elem_bytes; ++byte) {
            int64_t const at = (i * call.row_stride[0] + j * call.row_stride[1]) * call.elem_bytes + byte;
            cache[target * call.page_stride * call.elem_bytes + at] = cache[source * call.page_stride * call.elem_bytes + at];
          }
    }
  }
}

}  // namespace flashmla::reference
