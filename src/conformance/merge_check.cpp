#include "conformance/merge_check.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "conformance/buffer.hpp"
#include "conformance/compare.hpp"
#include "conformance/random.hpp"
#include "reference/merge.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Rounding of the output, and float32 arithmetic before it.
Tolerance merge_tolerance(flashmla_dtype out_dtype) {
  Tolerance tolerance = out_tolerance(out_dtype, out_dtype);
  if (out_dtype == FLASHMLA_FP32) tolerance.l2 = 2e-6;
  return tolerance;
}

/// The tensors of a case.
struct MergeInputs {
  MergeInputs(MergeCase const& c, DeviceMemory& memory);
  [[nodiscard]] flashmla_merge_args args(MergeCase const& c, flashmla_device device) const;
  /// The same on the host, with results in `out_fp32` [tokens, heads, v_dim] and `lse_fp32` [tokens, heads].
  core::MergeCall reference_call(MergeCase const& c, std::vector<float>& out_fp32, std::vector<float>& lse_fp32) const;
  [[nodiscard]] bool is_empty(MergeCase const& c, int64_t part, int64_t token, int64_t head) const;

  int64_t row, lse_token, lse_head;  // strides: of a row of v_dim; of lse along tokens and heads
  Buffer partial_out, partial_lse, sink, out, lse;
};

MergeInputs::MergeInputs(MergeCase const& c, DeviceMemory& memory)
    : row(c.v_dim + (c.padded ? 24 : 0)), lse_token(c.padded ? 1 : c.heads), lse_head(c.padded ? c.tokens : 1) {
  int64_t const rows = c.tokens * c.heads;
  size_t const partial_bytes = reference::element_bytes(c.partial_dtype), out_bytes = reference::element_bytes(c.out_dtype);
  partial_out = Buffer(memory, static_cast<size_t>(c.parts * rows * row) * partial_bytes);
  partial_lse = Buffer(memory, static_cast<size_t>(c.parts * rows) * sizeof(float));
  out = Buffer(memory, static_cast<size_t>(rows * row) * out_bytes);
  if (c.want_lse) lse = Buffer(memory, static_cast<size_t>(rows) * sizeof(float));
  if (c.sink) sink = Buffer(memory, static_cast<size_t>(c.heads) * sizeof(float));

  Random random(seed_of(c.name.c_str()));
  for (int64_t part = 0; part < c.parts; ++part)
    for (int64_t token = 0; token < c.tokens; ++token)
      for (int64_t head = 0; head < c.heads; ++head) {
        int64_t const at = (part * c.tokens + token) * c.heads + head;
        float& part_lse = partial_lse.host<float>()[part * rows + token * lse_token + head * lse_head];
        part_lse = 5 + 3 * random.normal();
        if (is_empty(c, part, token, head)) part_lse = (part + head) % 2 == 0 ? kInfinity : -kInfinity;
        else
          for (int64_t d = 0; d < c.v_dim; ++d)
            reference::store(c.partial_dtype, partial_out.host<void>(), at * row + d, 0.1 * random.normal());
      }
  for (int64_t head = 0; c.sink && head < c.heads; ++head) sink.host<float>()[head] = head % 5 == 4 ? -kInfinity : 5 + random.normal();
  for (Buffer* buffer : {&partial_out, &partial_lse, &sink}) buffer->upload();
}

bool MergeInputs::is_empty(MergeCase const& c, int64_t part, int64_t token, int64_t head) const {
  if (c.empty == EmptyParts::kNone) return false;
  return (part + token + head) % 3 == 0 || (c.empty == EmptyParts::kAll && token % 2 == 0);
}

flashmla_merge_args MergeInputs::args(MergeCase const& c, flashmla_device device) const {
  int64_t const rows = c.tokens * c.heads;
  flashmla_merge_args args{};
  args.struct_size = sizeof args;
  args.lse_base = c.lse_base;
  args.empty_row = c.empty_row;
  args.partial_out =
      make_view(partial_out.device(), c.partial_dtype, device, {c.parts, c.tokens, c.heads, c.v_dim}, {rows * row, c.heads * row, row, 1});
  args.partial_lse = make_view(partial_lse.device(), FLASHMLA_FP32, device, {c.parts, c.tokens, c.heads}, {rows, lse_token, lse_head});
  if (c.sink) args.sink = make_view(sink.device(), FLASHMLA_FP32, device, {c.heads}, {1});
  args.out = make_view(out.device(), c.out_dtype, device, {c.tokens, c.heads, c.v_dim}, {c.heads * row, row, 1});
  if (c.want_lse) args.lse = make_view(lse.device(), FLASHMLA_FP32, device, {c.tokens, c.heads}, {lse_token, lse_head});
  return args;
}

core::MergeCall MergeInputs::reference_call(MergeCase const& c, std::vector<float>& out_fp32, std::vector<float>& lse_fp32) const {
  int64_t const rows = c.tokens * c.heads;
  out_fp32.resize(static_cast<size_t>(rows * c.v_dim));
  lse_fp32.resize(static_cast<size_t>(rows));
  core::MergeCall call;
  call.num_parts = c.parts, call.tokens = c.tokens, call.heads = c.heads, call.v_dim = c.v_dim;
  call.partial_dtype = c.partial_dtype, call.out_dtype = FLASHMLA_FP32;
  call.lse_base = c.lse_base, call.empty_row = c.empty_row;
  call.partial_out = partial_out.host<void>();
  call.partial_lse = partial_lse.host<float>();
  call.sink = c.sink ? sink.host<float>() : nullptr;
  call.out = out_fp32.data();
  call.lse = lse_fp32.data();
  std::copy_n(std::initializer_list<int64_t>{rows * row, c.heads * row, row}.begin(), 3, call.partial_out_stride);
  std::copy_n(std::initializer_list<int64_t>{rows, lse_token, lse_head}.begin(), 3, call.partial_lse_stride);
  std::copy_n(std::initializer_list<int64_t>{c.heads * c.v_dim, c.v_dim}.begin(), 2, call.out_stride);
  std::copy_n(std::initializer_list<int64_t>{c.heads, 1}.begin(), 2, call.lse_stride);
  return call;
}

/// The results as doubles, in the order of the reference's; padding must be as it was.
Outcome judge(MergeCase const& c, MergeInputs const& inputs, flashmla_device_kind device) {
  std::vector<float> out_fp32, lse_fp32;
  reference::merge(inputs.reference_call(c, out_fp32, lse_fp32));
  std::vector<double> out, lse;
  size_t const elem = reference::element_bytes(c.out_dtype);
  for (int64_t r = 0; r < c.tokens * c.heads; ++r) {
    for (int64_t d = 0; d < c.v_dim; ++d) out.push_back(reference::load(c.out_dtype, inputs.out.host<void>(), r * inputs.row + d));
    if (c.want_lse) lse.push_back(inputs.lse.host<float>()[r / c.heads * inputs.lse_token + r % c.heads * inputs.lse_head]);
    std::byte const* const padding = inputs.out.host() + static_cast<size_t>(r * inputs.row + c.v_dim) * elem;
    if (!std::all_of(padding, padding + static_cast<size_t>(inputs.row - c.v_dim) * elem, [](std::byte b) { return b == std::byte{0xff}; }))
      return failed("written outside the views: padding of out behind row " + std::to_string(r));
  }
  if (!inputs.out.guards_intact() || (c.want_lse && !inputs.lse.guards_intact()))
    return failed("written outside the views: memory around an output");

  auto const row_name = [&](size_t r) {
    return std::to_string(r / static_cast<size_t>(c.heads)) + ", " + std::to_string(r % static_cast<size_t>(c.heads));
  };
  size_t const width = static_cast<size_t>(c.v_dim);
  Comparison const of_out = compare(out, std::vector<double>(out_fp32.begin(), out_fp32.end()), merge_tolerance(c.out_dtype),
                                    [&](size_t i) { return "out[" + row_name(i / width) + ", " + std::to_string(i % width) + "]"; });
  if (!of_out.ok) return failed(of_out.text);
  Comparison of_lse;
  if (c.want_lse)
    of_lse = compare(lse, std::vector<double>(lse_fp32.begin(), lse_fp32.end()), lse_tolerance(device),
                     [&](size_t i) { return "lse[" + row_name(i) + "]"; });
  return of_lse.ok ? Outcome{Status::kPassed, "", of_out.relative_l2, of_lse.worst_abs} : failed(of_lse.text);
}

}  // namespace

Outcome check_merge(MergeCase const& c, Bench const& bench) {
  MergeInputs inputs(c, bench.memory);
  flashmla_merge_args const args = inputs.args(c, bench.memory.device());
  std::vector<std::byte> first;
  for (int run = 0; run < 2; ++run) {
    inputs.out.poison();
    if (c.want_lse) inputs.lse.poison();
    if (auto const status = flashmla_merge(&args, bench.memory.stream()); status != FLASHMLA_OK) return refused("merge", status);
    inputs.out.download();
    if (c.want_lse) inputs.lse.download();
    std::span<std::byte const> const bytes{inputs.out.host(), inputs.out.bytes()};
    if (run == 0) first.assign(bytes.begin(), bytes.end());
    else if (int64_t const at = first_difference(first, bytes); at >= 0)
      return failed("run 2 gives other bits than run 1: out at byte " + std::to_string(at));
  }
  return judge(c, inputs, static_cast<flashmla_device_kind>(bench.memory.device().kind));
}

std::vector<MergeCase> merge_cases(Tier tier) {
  std::vector<MergeCase> cases;
  auto const add = [&](std::string name, auto const& change) {
    cases.emplace_back().name = std::move(name);
    change(cases.back());
  };
  constexpr std::pair<flashmla_dtype, char const*> kDtypes[] = {{FLASHMLA_BF16, "bf16"}, {FLASHMLA_FP16, "fp16"}, {FLASHMLA_FP32, "fp32"}};
  for (auto const& [from, from_name] : kDtypes)
    for (auto const& [to, to_name] : kDtypes)
      add(std::string(from_name) + "_to_" + to_name, [&, from = from, to = to](MergeCase& c) { c.partial_dtype = from, c.out_dtype = to; });
  add("one_part", [](MergeCase& c) { c.parts = 1; });
  add("many_parts", [](MergeCase& c) { c.parts = 37, c.out_dtype = FLASHMLA_FP32; });
  add("some_empty", [](MergeCase& c) { c.empty = EmptyParts::kSome; });
  add("all_empty_plus_inf", [](MergeCase& c) { c.empty = EmptyParts::kAll; });
  add("all_empty_minus_inf", [](MergeCase& c) { c.empty = EmptyParts::kAll, c.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF; });
  add("sink", [](MergeCase& c) { c.sink = true; });
  add("sink_base_2_empty", [](MergeCase& c) { c.sink = true, c.lse_base = FLASHMLA_LSE_BASE_2, c.empty = EmptyParts::kAll; });
  add("base_2", [](MergeCase& c) { c.lse_base = FLASHMLA_LSE_BASE_2; });
  add("lse_absent", [](MergeCase& c) { c.want_lse = false; });
  add("padded", [](MergeCase& c) { c.padded = true, c.empty = EmptyParts::kSome; });
  add("padded_fp32", [](MergeCase& c) { c.padded = true, c.out_dtype = FLASHMLA_FP32, c.partial_dtype = FLASHMLA_BF16; });
  add("h128", [](MergeCase& c) { c.heads = 128, c.tokens = 2; });
  add("h1", [](MergeCase& c) { c.heads = 1, c.tokens = 1; });
  add("v_dim_256", [](MergeCase& c) { c.v_dim = 256; });
  if (tier == Tier::kSmoke) return cases;
  add("large", [](MergeCase& c) { c.parts = 8, c.tokens = 256, c.heads = 128, c.empty = EmptyParts::kSome; });
  add("wide", [](MergeCase& c) { c.parts = 2, c.tokens = 4000, c.heads = 3; });
  return cases;
}

}  // namespace flashmla::conformance
