// Views of the public merge of partial results.
#include <algorithm>
#include <string>

#include "core/calls.hpp"
#include "core/names.hpp"
#include "core/struct_check.hpp"
#include "core/view_check.hpp"

namespace flashmla::core {

namespace {

constexpr char kMerge[] = "merge";

flashmla_dtype float_dtype(ViewCheck const& check, char const* argument, flashmla_view const& view) {
  if (view.dtype != FLASHMLA_BF16 && view.dtype != FLASHMLA_FP16 && view.dtype != FLASHMLA_FP32)
    check.fail(argument, {"dtype ", dtype_text(view.dtype)}, {"BF16, FP16 or FP32"});
  return static_cast<flashmla_dtype>(view.dtype);
}

void check_device(ViewCheck const& check, char const* argument, flashmla_device device) {
  if ((device.kind != FLASHMLA_CPU && device.kind != FLASHMLA_CUDA) || device.index < 0)
    check.fail(argument, {"a view on ", device_name(device)}, {"cpu or a CUDA device"});
}

}  // namespace

MergeCall validate(flashmla_merge_args const& args) {
  check_struct_size(kMerge, "flashmla_merge_args", args);
  check_flags(kMerge, args.flags, 0);
  MergeCall call;
  call.device = args.out.device;
  ViewCheck check(kMerge, call.device);
  if (args.lse_base != FLASHMLA_LSE_NATURAL && args.lse_base != FLASHMLA_LSE_BASE_2)
    check.fail("lse_base", {std::to_string(args.lse_base)}, {"a flashmla_lse_base"});
  if (args.empty_row != FLASHMLA_EMPTY_LSE_PLUS_INF && args.empty_row != FLASHMLA_EMPTY_LSE_MINUS_INF)
    check.fail("empty_row", {std::to_string(args.empty_row)}, {"a flashmla_empty_row"});
  call.lse_base = static_cast<flashmla_lse_base>(args.lse_base);
  call.empty_row = static_cast<flashmla_empty_row>(args.empty_row);

  check.require("out", args.out, "a view [tokens, heads, d_v]");
  check.require("partial_out", args.partial_out, "a view [num_parts, tokens, heads, d_v]");
  check.require("partial_lse", args.partial_lse, "an FP32 view [num_parts, tokens, heads]");
  check_device(check, "out", call.device);
  call.out_dtype = float_dtype(check, "out", args.out);
  call.partial_dtype = float_dtype(check, "partial_out", args.partial_out);
  check.output("out", args.out, call.out_dtype, ViewCheck::kRows, {{kAnySize}, {kAnySize}, {kAnySize}});
  call.tokens = args.out.size[0];
  call.heads = args.out.size[1];
  call.v_dim = args.out.size[2];
  if (call.v_dim == 0) check.fail("out", {"dim 2 = 0"}, {"at least 1"});
  Dim const tokens{call.tokens, "tokens of out"}, heads{call.heads, "heads of out"}, v_dim{call.v_dim, "d_v of out"};
  check.input("partial_out", args.partial_out, call.partial_dtype, ViewCheck::kRows, {{kAnySize}, tokens, heads, v_dim});
  call.num_parts = args.partial_out.size[0];
  check.input("partial_lse", args.partial_lse, FLASHMLA_FP32, ViewCheck::kStrided,
              {{call.num_parts, "parts of partial_out"}, tokens, heads});
  if (!is_absent(args.sink)) check.input("sink", args.sink, FLASHMLA_FP32, ViewCheck::kContiguous, {heads});
  if (!is_absent(args.lse)) check.output("lse", args.lse, FLASHMLA_FP32, ViewCheck::kStrided, {tokens, heads});
  check.check_overlap();

  call.partial_out = args.partial_out.data;
  call.partial_lse = static_cast<float const*>(args.partial_lse.data);
  call.sink = static_cast<float const*>(args.sink.data);
  call.out = args.out.data;
  call.lse = static_cast<float*>(args.lse.data);
  std::copy_n(args.partial_out.stride, 3, call.partial_out_stride);
  std::copy_n(args.partial_lse.stride, 3, call.partial_lse_stride);
  std::copy_n(args.out.stride, 2, call.out_stride);
  std::copy_n(args.lse.stride, 2, call.lse_stride);
  return call;
}

}  // namespace flashmla::core
