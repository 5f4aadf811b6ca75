#include "conformance/copy_pages_check.hpp"

#include <numeric>
#include <span>

#include "conformance/buffer.hpp"
#include "conformance/compare.hpp"
#include "conformance/random.hpp"
#include "core/calls.hpp"
#include "core/names.hpp"
#include "reference/copy_pages.hpp"

namespace flashmla::conformance {
namespace {

/// All caches of a case in one buffer, full of random bytes: what is copied wrongly, or not at all, shows.
struct CopyPagesInputs {
  CopyPagesInputs(CopyPagesCase const& c, DeviceMemory& memory);
  /// Views of the caches in memory that begins at `base`.
  [[nodiscard]] std::vector<flashmla_view> views(CopyPagesCase const& c, void* base, flashmla_device device) const;

  int64_t elem_bytes, token_stride, head_stride, page_span, page_stride, layer_stride;
  std::vector<flashmla_page_copy> copies;
  Buffer caches;
};

CopyPagesInputs::CopyPagesInputs(CopyPagesCase const& c, DeviceMemory& memory)
    : elem_bytes(static_cast<int64_t>(core::dtype_bytes(c.dtype))),
      token_stride((c.heads_outside ? 1 : c.heads) * c.width + (c.padded_tokens ? 24 : 0)),
      head_stride(c.heads_outside ? c.page_tokens * token_stride : c.width),
      page_span((c.heads_outside ? c.heads : 1) * c.page_tokens * token_stride + (c.padded_pages ? 40 : 0)),
      page_stride(page_span * (c.interleaved ? c.layers : 1)),
      layer_stride(c.interleaved ? page_span : c.num_pages * page_span),
      caches(memory, static_cast<size_t>((c.layers * c.num_pages * page_span + c.misaligned_elems) * elem_bytes)) {
  Random random(seed_of(c.name.c_str()));
  auto* const bytes = caches.host<unsigned char>();
  for (size_t i = 0; i < caches.bytes(); ++i) bytes[i] = static_cast<unsigned char>(random.next() >> 32);
  caches.upload();

  std::vector<int32_t> pages(static_cast<size_t>(c.num_pages));
  std::iota(pages.begin(), pages.end(), 0);
  random.shuffle(pages);
  int64_t const num_sources = c.num_pages - c.num_copies;  // a source may be copied several times
  for (int64_t i = 0; i < c.num_copies; ++i) {
    int32_t const source = pages[static_cast<size_t>(c.num_copies + random.below(num_sources))];
    copies.push_back(c.skips && i % 3 == 1 ? flashmla_page_copy{-1, -1} : flashmla_page_copy{source, pages[static_cast<size_t>(i)]});
  }
}

std::vector<flashmla_view> CopyPagesInputs::views(CopyPagesCase const& c, void* base, flashmla_device device) const {
  std::vector<flashmla_view> all;
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    void* const data = static_cast<char*>(base) + (c.misaligned_elems + layer * layer_stride) * elem_bytes;
    all.push_back(c.heads == 1 ? make_view(data, c.dtype, device, {c.num_pages, c.page_tokens, c.width}, {page_stride, token_stride, 1})
                               : make_view(data, c.dtype, device, {c.num_pages, c.page_tokens, c.heads, c.width},
                                           {page_stride, token_stride, head_stride, 1}));
  }
  return all;
}

flashmla_copy_pages_args args_of(std::vector<flashmla_view> const& views, std::vector<flashmla_page_copy> const& copies) {
  flashmla_copy_pages_args args{};
  args.struct_size = sizeof args;
  args.caches = views.data();
  args.num_caches = static_cast<int64_t>(views.size());
  args.copies = copies.data();
  args.num_copies = static_cast<int64_t>(copies.size());
  return args;
}

/// What must be refused before anything is copied; empty, or the first that was not.
std::string accepted_wrongly(CopyPagesCase const& c, std::vector<flashmla_view> const& views, flashmla_stream stream) {
  auto const last = static_cast<int32_t>(c.num_pages - 1);
  std::vector<std::vector<flashmla_page_copy>> const wrong = {{{0, last}, {0, last + 1}}, {{0, last}, {-2, 1}},   {{0, last}, {-1, 1}},
                                                              {{0, last}, {1, last}},     {{0, last}, {last, 1}}, {{last, last}}};
  for (size_t i = 0; i < wrong.size(); ++i) {
    flashmla_copy_pages_args const args = args_of(views, wrong[i]);
    if (auto const status = flashmla_copy_pages(&args, stream); status != FLASHMLA_INVALID_ARGUMENT)
      return "wrong copies " + std::to_string(i) + " were answered with " + flashmla_status_name(status);
  }
  return "";
}

}  // namespace

Outcome check_copy_pages(CopyPagesCase const& c, Bench const& bench) {
  CopyPagesInputs inputs(c, bench.memory);
  std::vector<std::byte> expected(inputs.caches.host(), inputs.caches.host() + inputs.caches.bytes());
  std::vector<flashmla_view> const host_views = inputs.views(c, expected.data(), {FLASHMLA_CPU, 0});
  std::vector<flashmla_view> const views = inputs.views(c, inputs.caches.device(), bench.memory.device());
  flashmla_copy_pages_args const args = args_of(views, inputs.copies);
  core::CopyPagesCall call = core::validate(args);
  call.caches = host_views.data();
  reference::copy_pages(call);

  if (std::string const text = accepted_wrongly(c, views, bench.memory.stream()); !text.empty()) return failed(text);
  {
    // The lists are read before the call returns: what happens to them afterwards does not matter.
    std::vector<flashmla_view> passing_views = views;
    std::vector<flashmla_page_copy> passing_copies = inputs.copies;
    flashmla_copy_pages_args const passing = args_of(passing_views, passing_copies);
    if (auto const status = flashmla_copy_pages(&passing, bench.memory.stream()); status != FLASHMLA_OK)
      return refused("copy_pages", status);
    passing_views.assign(passing_views.size(), flashmla_view{});
    passing_copies.assign(passing_copies.size(), flashmla_page_copy{-7, -7});
  }
  inputs.caches.download();
  if (!inputs.caches.guards_intact()) return failed("written outside the views: memory around the caches");
  int64_t const at = first_difference(expected, {inputs.caches.host(), inputs.caches.bytes()});
  if (at < 0) return {};
  int64_t const elem = at / inputs.elem_bytes - c.misaligned_elems;
  int64_t const page = c.interleaved ? elem / inputs.page_stride : elem % inputs.layer_stride / inputs.page_stride;
  int64_t const layer = c.interleaved ? elem % inputs.page_stride / inputs.page_span : elem / inputs.layer_stride;
  return failed("cache " + std::to_string(layer) + " differs at page " + std::to_string(page) + ", number " +
                std::to_string(elem % inputs.page_span));
}

std::vector<CopyPagesCase> copy_pages_cases(Tier tier) {
  std::vector<CopyPagesCase> cases;
  auto const add = [&](std::string name, auto const& change) {
    cases.emplace_back().name = std::move(name);
    change(cases.back());
  };
  using C = CopyPagesCase;
  add("plain", [](C&) {});
  add("plain_fp16", [](C& c) { c.dtype = FLASHMLA_FP16; });
  add("none", [](C& c) { c.num_copies = 0; });
  add("one", [](C& c) { c.num_copies = 1, c.layers = 1; });
  add("skips", [](C& c) { c.skips = true, c.num_copies = 9, c.num_pages = 20; });
  add("page_1", [](C& c) { c.page_tokens = 1; });
  add("page_48", [](C& c) { c.page_tokens = 48; });
  add("padded_pages", [](C& c) { c.padded_pages = true; });
  add("padded_tokens", [](C& c) { c.padded_tokens = true, c.padded_pages = true; });
  add("misaligned", [](C& c) { c.misaligned_elems = 1, c.page_tokens = 16; });
  add("odd_width", [](C& c) { c.width = 575, c.page_tokens = 3, c.padded_tokens = true; });
  add("heads", [](C& c) { c.heads = 3, c.padded_tokens = true, c.page_tokens = 16; });
  add("heads_outside", [](C& c) { c.heads = 2, c.heads_outside = true, c.page_tokens = 16; });
  add("heads_outside_padded", [](C& c) { c.heads = 2, c.heads_outside = true, c.padded_tokens = true, c.page_tokens = 16; });
  add("interleaved", [](C& c) { c.interleaved = true; });
  add("bytes_656", [](C& c) { c.dtype = FLASHMLA_UINT8, c.width = 656; });
  add("bytes_584", [](C& c) { c.dtype = FLASHMLA_UINT8, c.width = 584, c.page_tokens = 3; });
  add("width_320", [](C& c) { c.width = 320, c.padded_pages = true; });
  add("width_288", [](C& c) { c.width = 288, c.page_tokens = 16; });
  add("fp32", [](C& c) { c.dtype = FLASHMLA_FP32, c.width = 33; });
  if (tier == Tier::kSmoke) return cases;
  // More caches and more pairs than one launch takes.
  add("many_layers", [](C& c) { c.layers = 131, c.page_tokens = 2, c.num_copies = 5; });
  add("many_pairs", [](C& c) { c.layers = 2, c.page_tokens = 4, c.num_pages = 1500, c.num_copies = 1200, c.skips = true; });
  add("many_of_both", [](C& c) { c.layers = 65, c.page_tokens = 1, c.width = 64, c.num_pages = 500, c.num_copies = 385; });
  return cases;
}

}  // namespace flashmla::conformance
