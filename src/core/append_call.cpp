// Views of append: new tokens into their pages.
#include <string>

#include "core/calls.hpp"
#include "core/names.hpp"
#include "core/struct_check.hpp"
#include "core/view_check.hpp"

namespace flashmla::core {

namespace {

constexpr char kAppend[] = "append";

KvFormat const& checked_format(int32_t id) {
  KvFormat const* const format = find_kv_format(id);
  if (id == FLASHMLA_KV_NONE) fail_invalid(kAppend, "kv_format", "NONE", "a flashmla_kv_format (required; it is never inferred)");
  if (format == nullptr) fail_invalid(kAppend, "kv_format", std::to_string(id), "a flashmla_kv_format");
  if (!format->built) fail_unsupported(kAppend, "kv_format", format->name, built_formats() + " (not built yet)");
  return *format;
}

void check_tokens(ViewCheck& check, flashmla_append_args const& args, AppendCall& call) {
  KvFormat const& format = *call.format;
  Dim const tokens{call.tokens, "tokens, from slot_mapping"};
  if (check.choose_fused({"kv", "ckv", "kpe"}, args.kv, args.ckv, args.kpe)) {
    check.input("kv", args.kv, format.dtype, ViewCheck::kRows, {tokens, {format.qk_dim, "latent + rope"}});
    call.ckv = args.kv.data;
    int64_t const latent_bytes = format.latent * static_cast<int64_t>(dtype_bytes(format.dtype));
    call.kpe = args.kv.data == nullptr ? nullptr : static_cast<char const*>(args.kv.data) + latent_bytes;
    call.ckv_token_stride = call.kpe_token_stride = args.kv.stride[0];
    return;
  }
  check.input("ckv", args.ckv, format.dtype, ViewCheck::kRows, {tokens, {format.latent, "latent"}});
  check.input("kpe", args.kpe, format.dtype, ViewCheck::kRows, {tokens, {format.rope, "rope"}});
  call.ckv = args.ckv.data;
  call.kpe = args.kpe.data;
  call.ckv_token_stride = args.ckv.stride[0];
  call.kpe_token_stride = args.kpe.stride[0];
}

void check_cache(ViewCheck& check, flashmla_view const& cache, AppendCall& call) {
  KvFormat const& format = *call.format;
  Dim const width{format.qk_dim, "latent + rope"};
  if (cache.rank == 4) check.output("cache", cache, format.dtype, ViewCheck::kRows, {{kAnySize}, {kAnySize}, {1, "KV heads"}, width});
  else check.output("cache", cache, format.dtype, ViewCheck::kRows, {{kAnySize}, {kAnySize}, width});
  call.cache = cache.data;
  call.num_pages = cache.size[0];
  call.page_tokens = cache.size[1];
  call.page_stride = cache.stride[0];
  call.token_stride = cache.stride[1];
}

}  // namespace

AppendCall validate(flashmla_append_args const& args) {
  check_struct_size(kAppend, "flashmla_append_args", args);
  check_flags(kAppend, args.flags, 0);
  check_reserved(kAppend, args.reserved);
  AppendCall call;
  call.format = &checked_format(args.kv_format);
  call.device = args.cache.device;
  ViewCheck check(kAppend, call.device);
  check.require("cache", args.cache, "a view [num_pages, page_tokens, d_qk]");
  if ((call.device.kind != FLASHMLA_CPU && call.device.kind != FLASHMLA_CUDA) || call.device.index < 0)
    check.fail("cache", {"a view on ", device_name(call.device)}, {"cpu or a CUDA device"});
  if (call.device.kind == FLASHMLA_CUDA && !is_served_on_gpu(*call.format))
    fail_unsupported(kAppend, "kv_format", call.format->name, "BF16_576, FP16_576, BF16_320 or BF16_288 on a GPU, or this on the CPU");
  check.require("slot_mapping", args.slot_mapping, "an INT64 view [tokens]");
  check.input("slot_mapping", args.slot_mapping, FLASHMLA_INT64, ViewCheck::kContiguous, {{kAnySize}});
  call.slot_mapping = static_cast<int64_t const*>(args.slot_mapping.data);
  call.tokens = args.slot_mapping.size[0];
  check_tokens(check, args, call);
  check_cache(check, args.cache, call);
  if (!is_absent(args.fault)) {
    check.output("fault", args.fault, FLASHMLA_INT32, ViewCheck::kContiguous, {{8, "a flashmla_fault"}});
    call.fault = static_cast<flashmla_fault*>(args.fault.data);
  }
  check.check_overlap();
  return call;
}

}  // namespace flashmla::core
