#include "conformance/append_check.hpp"

#include <cstring>
#include <numeric>

#include "conformance/buffer.hpp"
#include "conformance/compare.hpp"
#include "conformance/noise.hpp"
#include "core/calls.hpp"
#include "core/names.hpp"
#include "reference/append.hpp"

namespace flashmla::conformance {
namespace {

/// The tensors of a case. The cache starts as poison, so that every byte written shows.
struct AppendInputs {
  AppendInputs(AppendCase const& c, DeviceMemory& memory);
  [[nodiscard]] flashmla_append_args args(AppendCase const& c, flashmla_device device) const;
  core::AppendCall reference_call(AppendCase const& c, void* cache) const;
  /// Element `index` of a tensor of tokens.
  [[nodiscard]] void* element(void* base, int64_t index) const { return static_cast<char*>(base) + index * static_cast<int64_t>(bytes); }

  core::KvFormat const& format;
  size_t bytes;  // of an element
  int64_t source_stride, rope_stride, page_stride;
  Buffer source;  // [tokens, qk_dim] or [tokens, latent]
  Buffer rope;    // [tokens, rope] of a pair
  Buffer slots, cache, fault;
};

AppendInputs::AppendInputs(AppendCase const& c, DeviceMemory& memory)
    : format(*core::find_kv_format(c.format)),
      bytes(core::dtype_bytes(format.dtype)),
      source_stride((c.pair ? format.latent : format.qk_dim) + (c.padded_source ? 40 : 0)),
      rope_stride(format.rope + (c.padded_source ? 8 : 0)),
      page_stride(c.page_tokens * format.qk_dim + (c.padded_pages ? 64 : 0)),
      source(memory, static_cast<size_t>(c.tokens * source_stride) * bytes),
      rope(memory, static_cast<size_t>(c.pair ? c.tokens * rope_stride : 0) * bytes),
      slots(memory, static_cast<size_t>(c.tokens) * sizeof(int64_t)),
      cache(memory, static_cast<size_t>(c.num_pages * page_stride) * bytes),
      fault(memory, sizeof(flashmla_fault)) {
  Random random(seed_of(c.name.c_str()));
  flashmla_dtype const dtype = format.dtype;
  std::vector<int64_t> free_slots(static_cast<size_t>(c.num_pages * c.page_tokens));
  std::iota(free_slots.begin(), free_slots.end(), 0);
  random.shuffle(free_slots);
  for (int64_t token = 0; token < c.tokens; ++token) {
    fill_noise(random, dtype, 1, element(source.host<void>(), token * source_stride), c.pair ? format.latent : format.qk_dim);
    if (c.pair) fill_noise(random, dtype, 1, element(rope.host<void>(), token * rope_stride), format.rope);
    int64_t& slot = slots.host<int64_t>()[token];
    slot = c.skips && token % 3 == 0 ? -1 : free_slots[static_cast<size_t>(token)];
    if (token % 2 == 1 && static_cast<size_t>(token / 2) < c.bad_slots.size()) slot = c.bad_slots[static_cast<size_t>(token / 2)];
  }
  std::memset(fault.host(), 0, fault.bytes());
  for (Buffer* buffer : {&source, &rope, &slots, &fault}) buffer->upload();
}

flashmla_append_args AppendInputs::args(AppendCase const& c, flashmla_device device) const {
  flashmla_dtype const dtype = format.dtype;
  flashmla_append_args args{};
  args.struct_size = sizeof args;
  args.kv_format = c.format;
  (c.pair ? args.ckv : args.kv) =
      make_view(source.device(), dtype, device, {c.tokens, c.pair ? format.latent : format.qk_dim}, {source_stride, 1});
  if (c.pair) args.kpe = make_view(rope.device(), dtype, device, {c.tokens, format.rope}, {rope_stride, 1});
  args.slot_mapping = make_view(slots.device(), FLASHMLA_INT64, device, {c.tokens}, {1});
  args.cache = c.rank4
                   ? make_view(cache.device(), dtype, device, {c.num_pages, c.page_tokens, 1, format.qk_dim},
                               {page_stride, format.qk_dim, format.qk_dim, 1})
                   : make_view(cache.device(), dtype, device, {c.num_pages, c.page_tokens, format.qk_dim}, {page_stride, format.qk_dim, 1});
  if (c.want_fault) args.fault = make_view(fault.device(), FLASHMLA_INT32, device, {8}, {1});
  return args;
}

core::AppendCall AppendInputs::reference_call(AppendCase const& c, void* target) const {
  core::AppendCall call;
  call.format = &format;
  call.tokens = c.tokens;
  call.ckv = source.host<void>();
  call.kpe = c.pair ? rope.host<void>() : element(source.host<void>(), format.latent);
  call.ckv_token_stride = source_stride;
  call.kpe_token_stride = c.pair ? rope_stride : source_stride;
  call.slot_mapping = slots.host<int64_t>();
  call.cache = target;
  call.num_pages = c.num_pages, call.page_tokens = c.page_tokens, call.page_stride = page_stride, call.token_stride = format.qk_dim;
  return call;
}

}  // namespace

Outcome check_append(AppendCase const& c, Bench const& bench) {
  AppendInputs inputs(c, bench.memory);
  flashmla_append_args const args = inputs.args(c, bench.memory.device());
  std::vector<std::byte> expected(inputs.cache.bytes(), std::byte{0xff});
  std::vector<flashmla_fault> const faults = reference::append(inputs.reference_call(c, expected.data()));

  if (auto const status = flashmla_append(&args, bench.memory.stream()); status != FLASHMLA_OK) return refused("append", status);
  inputs.cache.download();
  inputs.fault.download();
  if (!inputs.cache.guards_intact() || !inputs.fault.guards_intact())
    return failed("written outside the views: memory around the cache or the fault record");
  int64_t const at = first_difference(expected, {inputs.cache.host(), inputs.cache.bytes()});
  if (at >= 0) {
    int64_t const elem = at / static_cast<int64_t>(inputs.bytes), page = elem / inputs.page_stride, inside = elem % inputs.page_stride;
    return failed("cache differs at page " + std::to_string(page) + ", token " + std::to_string(inside / inputs.format.qk_dim) +
                  ", number " + std::to_string(inside % inputs.format.qk_dim));
  }

  flashmla_fault found;
  std::memcpy(&found, inputs.fault.host(), sizeof found);
  if (faults.empty() || !c.want_fault)
    return found.code == FLASHMLA_FAULT_NONE ? Outcome{} : failed("fault record: got " + text_of(found) + ", expected none");
  for (flashmla_fault const& fault : faults)
    if (same(fault, found)) return {};
  return failed("fault record: got " + text_of(found) + ", expected one of " + std::to_string(faults.size()) + ", the first being " +
                text_of(faults[0]));
}

std::vector<AppendCase> append_cases(Tier tier) {
  std::vector<AppendCase> cases;
  auto const add = [&](std::string name, auto const& change) {
    cases.emplace_back().name = name;
    change(cases.back());
    cases.push_back(cases.back());
    cases.back().name += ".fp16";
    cases.back().format = FLASHMLA_KV_FP16_576;
    cases.push_back(cases.back());
    cases.back().name.replace(cases.back().name.size() - 2, 2, "32");
    cases.back().format = FLASHMLA_KV_FP32_576;
  };
  auto const add_as = [&](std::string name, flashmla_kv_format format, auto const& change) {
    cases.emplace_back().name = std::move(name);
    cases.back().format = format;
    change(cases.back());
  };
  add("plain", [](AppendCase&) {});
  add("one_token", [](AppendCase& c) { c.tokens = 1; });
  add("pair", [](AppendCase& c) { c.pair = true; });
  add("pair_padded", [](AppendCase& c) { c.pair = true, c.padded_source = true, c.padded_pages = true; });
  add("padded", [](AppendCase& c) { c.padded_source = true, c.padded_pages = true, c.rank4 = true; });
  add("skips", [](AppendCase& c) { c.skips = true, c.tokens = 40; });
  add("page_1", [](AppendCase& c) { c.page_tokens = 1, c.num_pages = 50; });
  add("page_16", [](AppendCase& c) { c.page_tokens = 16; });
  add("page_48", [](AppendCase& c) { c.page_tokens = 48; });
  add("bad_slot_negative", [](AppendCase& c) { c.bad_slots = {-2}; });
  add("bad_slot_beyond", [](AppendCase& c) { c.bad_slots = {9 * 64}; });
  add("bad_slots_far", [](AppendCase& c) { c.bad_slots = {int64_t{1} << 40, -(int64_t{1} << 40), 9 * 64, -2}, c.skips = true; });
  add("bad_slot_unrecorded", [](AppendCase& c) { c.bad_slots = {-2, 100000}, c.want_fault = false; });
  for (auto const& [format, suffix] : {std::pair(FLASHMLA_KV_BF16_320, "_320"), std::pair(FLASHMLA_KV_BF16_288, "_288")}) {
    std::string const name = suffix;
    add_as("plain" + name, format, [](AppendCase&) {});
    add_as("pair_padded" + name, format, [](AppendCase& c) { c.pair = true, c.padded_source = true, c.padded_pages = true; });
    add_as("page_16_skips" + name, format, [](AppendCase& c) { c.page_tokens = 16, c.skips = true, c.rank4 = true; });
  }
  if (tier == Tier::kSmoke) return cases;
  add("many", [](AppendCase& c) { c.tokens = 5000, c.num_pages = 100; });
  add("many_skips_pair",
      [](AppendCase& c) { c.tokens = 5000, c.num_pages = 400, c.page_tokens = 16, c.skips = true, c.pair = true, c.padded_pages = true; });
  return cases;
}

}  // namespace flashmla::conformance
