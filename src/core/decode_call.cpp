// Lengths and views of `update` and `run`, reduced to pointers and strides.
#include <string>

#include "core/calls.hpp"
#include "core/names.hpp"
#include "core/struct_check.hpp"
#include "core/view_check.hpp"

namespace flashmla::core {

namespace {

constexpr char kUpdate[] = "plan_update";
constexpr char kRun[] = "decode";

struct LengthNames {
  char const *flags, *reserved, *kv_len, *q_tokens, *q_offsets, *topk_len, *extra_topk_len;
};
constexpr LengthNames kOwnNames = {"flags", "reserved", "kv_len", "q_tokens", "q_offsets", "topk_len", "extra_topk_len"};
constexpr LengthNames kNestedNames = {"lengths.flags",     "lengths.reserved", "lengths.kv_len",        "lengths.q_tokens",
                                      "lengths.q_offsets", "lengths.topk_len", "lengths.extra_topk_len"};

LengthsCall check_lengths(char const* operation, LengthNames const& names, ViewCheck& check, Problem const& problem,
                          flashmla_lengths const& lengths) {
  check_flags(operation, lengths.flags, 0, names.flags);
  check_reserved(operation, lengths.reserved, names.reserved);
  check.refuse(names.topk_len, lengths.topk_len, "no view (dense attention)");
  check.refuse(names.extra_topk_len, lengths.extra_topk_len, "no view (dense attention over one cache)");
  check.require(names.kv_len, lengths.kv_len, "an INT32 view [batch]");
  check.input(names.kv_len, lengths.kv_len, FLASHMLA_INT32, ViewCheck::kContiguous, {{kAnySize}});
  int64_t const batch = lengths.kv_len.size[0];
  if (batch > problem.max_batch)
    check.fail(names.kv_len, {"a batch of ", std::to_string(batch)}, {"at most max_batch ", std::to_string(problem.max_batch)});
  LengthsCall call;
  call.batch = static_cast<int32_t>(batch);
  call.kv_len = static_cast<int32_t const*>(lengths.kv_len.data);
  if (!is_absent(lengths.q_offsets)) {
    check.input(names.q_offsets, lengths.q_offsets, FLASHMLA_INT32, ViewCheck::kContiguous, {{batch + 1, "batch + 1"}});
    call.q_offsets = static_cast<int32_t const*>(lengths.q_offsets.data);
  }
  bool const is_ragged = call.q_offsets != nullptr;
  int32_t const by_default = is_ragged ? static_cast<int32_t>(problem.max_q_tokens) : 1;
  call.q_tokens = lengths.q_tokens == 0 ? by_default : lengths.q_tokens;
  if (call.q_tokens < 0)
    check.fail(names.q_tokens, {std::to_string(call.q_tokens)}, {"at least 1 (0 means ", is_ragged ? "max_q_tokens" : "1", ")"});
  if (call.q_tokens > problem.max_q_tokens)
    check.fail(names.q_tokens, {std::to_string(call.q_tokens)}, {"at most max_q_tokens ", std::to_string(problem.max_q_tokens)});
  return call;
}

void refuse_what_is_not_built(ViewCheck const& check, flashmla_decode_args const& args) {
  check.refuse("indices", args.indices, "no view (dense attention over the page table)");
  check.refuse("extra_cache", args.extra_cache, "no view (one cache; attend to each and combine with flashmla_merge)");
  check.refuse("extra_page_table", args.extra_page_table, "no view (one cache)");
  check.refuse("extra_indices", args.extra_indices, "no view (one cache)");
  check.refuse("q_scale", args.q_scale, "no view (the built formats have no scales)");
  check.refuse("kv_scale", args.kv_scale, "no view (the built formats have no scales)");
}

/// Strides (batch, token, head) of rows, which have no batch dimension when they are ragged.
RowStrides row_strides(DecodeCall const& call, flashmla_view const& view) {
  if (call.q_offsets != nullptr) return {0, view.stride[0], view.stride[1]};
  return {view.stride[0], view.stride[1], view.stride[2]};
}
bool operator==(RowStrides const& a, RowStrides const& b) { return a.batch == b.batch && a.token == b.token && a.head == b.head; }

/// Where the rope part of fused rows begins: `latent` elements behind their base.
void const* behind_latent(KvFormat const& format, void const* base) {
  return base == nullptr ? nullptr : static_cast<char const*>(base) + format.latent * static_cast<int64_t>(dtype_bytes(format.dtype));
}

/// The dimensions of rows, but for the last.
struct RowDims {
  Dim batch, tokens, heads;  // `tokens` of a request, or of a ragged call
};

RowDims row_dims(Problem const& problem, DecodeCall const& call) {
  Dim const tokens = call.q_offsets == nullptr ? Dim{call.q_tokens, "lengths.q_tokens"} : Dim{call.total_q, "query tokens, as q has"};
  return {{call.batch, "batch, from lengths.kv_len"}, tokens, {problem.h_q, "h_q of the problem"}};
}

/// Rows of a width: [batch, q_tokens, h_q, width], or ragged [total_q, h_q, width].
void check_input_rows(ViewCheck& check, Problem const& problem, DecodeCall const& call, Known rows, Dim width) {
  RowDims const d = row_dims(problem, call);
  if (call.q_offsets != nullptr) check.input(rows.argument, *rows.view, problem.q_dtype, ViewCheck::kRows, {d.tokens, d.heads, width});
  else check.input(rows.argument, *rows.view, problem.q_dtype, ViewCheck::kRows, {d.batch, d.tokens, d.heads, width});
}

void check_q(ViewCheck& check, Problem const& problem, flashmla_decode_args const& args, DecodeCall& call) {
  KvFormat const& format = *problem.format;
  bool const is_fused = check.choose_fused({"q", "q_nope", "q_pe"}, args.q, args.q_nope, args.q_pe);
  // With q_offsets nothing but q itself says how many tokens there are; a rank that is not 3 is refused below.
  call.total_q = call.q_offsets == nullptr ? static_cast<int64_t>(call.batch) * call.q_tokens : (is_fused ? args.q : args.q_nope).size[0];
  if (is_fused) {
    check_input_rows(check, problem, call, {"q", &args.q}, {format.qk_dim, "latent + rope"});
    call.q_nope = args.q.data;
    call.q_pe = behind_latent(format, args.q.data);
    call.q_nope_stride = call.q_pe_stride = row_strides(call, args.q);
    return;
  }
  check_input_rows(check, problem, call, {"q_nope", &args.q_nope}, {format.latent, "latent"});
  check_input_rows(check, problem, call, {"q_pe", &args.q_pe}, {format.rope, "rope"});
  call.q_nope = args.q_nope.data;
  call.q_pe = args.q_pe.data;
  call.q_nope_stride = row_strides(call, args.q_nope);
  call.q_pe_stride = row_strides(call, args.q_pe);
  call.q_fused = call.q_pe == behind_latent(format, call.q_nope) && call.q_nope_stride == call.q_pe_stride;
}

/// One cache view, with or without the dimension of a single KV head; returns its strides (page, token, head).
RowStrides check_cache_view(ViewCheck& check, char const* argument, flashmla_view const& view, Problem const& problem, Dim width) {
  Dim const pages{kAnySize}, tokens{problem.page_tokens, "page_tokens of the problem"};
  if (view.rank == 3 && problem.h_kv == 1) {
    check.input(argument, view, problem.format->dtype, ViewCheck::kRows, {pages, tokens, width});
    return {view.stride[0], view.stride[1], 0};
  }
  check.input(argument, view, problem.format->dtype, ViewCheck::kRows, {pages, tokens, {problem.h_kv, "h_kv of the problem"}, width});
  return {view.stride[0], view.stride[1], problem.h_kv == 1 ? 0 : view.stride[2]};
}

void set_cache(DecodeCall& call, void const* ckv, void const* kpe, RowStrides c, RowStrides k) {
  call.ckv = ckv;
  call.kpe = kpe;
  call.ckv_page_stride = c.batch;
  call.ckv_token_stride = c.token;
  call.ckv_head_stride = c.head;
  call.kpe_page_stride = k.batch;
  call.kpe_token_stride = k.token;
  call.kpe_head_stride = k.head;
}

void check_cache(ViewCheck& check, Problem const& problem, flashmla_decode_args const& args, DecodeCall& call) {
  KvFormat const& format = *problem.format;
  if (check.choose_fused({"cache", "ckv", "kpe"}, args.cache, args.ckv, args.kpe)) {
    RowStrides const strides = check_cache_view(check, "cache", args.cache, problem, {format.qk_dim, "latent + rope"});
    set_cache(call, args.cache.data, behind_latent(format, args.cache.data), strides, strides);
    call.num_pages = args.cache.size[0];
    return;
  }
  RowStrides const c = check_cache_view(check, "ckv", args.ckv, problem, {format.latent, "latent"});
  RowStrides const k = check_cache_view(check, "kpe", args.kpe, problem, {format.rope, "rope"});
  if (args.kpe.size[0] != args.ckv.size[0])
    check.fail("kpe", {"dim 0 = ", std::to_string(args.kpe.size[0])}, {std::to_string(args.ckv.size[0]), " (pages of ckv)"});
  set_cache(call, args.ckv.data, args.kpe.data, c, k);
  call.num_pages = args.ckv.size[0];
  call.cache_fused = call.kpe == behind_latent(format, call.ckv) && c == k;
}

/// What the tokens of all requests together are, in messages.
Dim all_tokens(DecodeCall const& call) { return {call.total_q, call.q_offsets == nullptr ? "batch * q_tokens" : "query tokens, as q has"}; }

void check_lse(ViewCheck& check, Problem const& problem, flashmla_view const& lse, DecodeCall& call) {
  if (is_absent(lse)) return;
  RowDims const d = row_dims(problem, call);
  int64_t const* const stride = lse.stride;
  bool const is_ragged = call.q_offsets != nullptr;
  if (problem.lse_layout == FLASHMLA_LSE_TOKENS_HEADS) {
    Dim const rows = all_tokens(call);
    check.output("lse", lse, FLASHMLA_FP32, ViewCheck::kStrided, {rows, d.heads});
    // A view of one row or none may have any stride: only with more rows is it known that the product fits.
    call.lse_stride = {rows.size > 1 && !is_ragged ? call.q_tokens * stride[0] : 0, stride[0], stride[1]};
  } else if (is_ragged) {
    check.output("lse", lse, FLASHMLA_FP32, ViewCheck::kStrided, {d.heads, d.tokens});
    call.lse_stride = {0, stride[1], stride[0]};
  } else {
    check.output("lse", lse, FLASHMLA_FP32, ViewCheck::kStrided, {d.batch, d.heads, d.tokens});
    call.lse_stride = {stride[0], stride[2], stride[1]};
  }
  call.lse = static_cast<float*>(lse.data);
}

void check_outputs(ViewCheck& check, Problem const& problem, flashmla_decode_args const& args, DecodeCall& call) {
  RowDims const d = row_dims(problem, call);
  Dim const width{problem.format->v_dim, "d_v of the cache format"};
  bool const is_ragged = call.q_offsets != nullptr;
  check.require("out", args.out, is_ragged ? "a view [total_q, h_q, d_v]" : "a view [batch, q_tokens, h_q, d_v]");
  if (is_ragged) check.output("out", args.out, problem.out_dtype, ViewCheck::kRows, {d.tokens, d.heads, width});
  else check.output("out", args.out, problem.out_dtype, ViewCheck::kRows, {d.batch, d.tokens, d.heads, width});
  call.out = args.out.data;
  call.out_stride = row_strides(call, args.out);
  check_lse(check, problem, args.lse, call);
}

void check_small_inputs(ViewCheck& check, Problem const& problem, flashmla_decode_args const& args, DecodeCall& call) {
  check.require("page_table", args.page_table, "an INT32 view [batch, max_pages]");
  check.input("page_table", args.page_table, FLASHMLA_INT32, ViewCheck::kRows, {{call.batch, "batch, from lengths.kv_len"}, {kAnySize}});
  call.page_table = static_cast<int32_t const*>(args.page_table.data);
  call.page_table_stride = args.page_table.stride[0];
  call.table_pages = args.page_table.size[1];
  if (!is_absent(args.visible_len)) {
    check.input("visible_len", args.visible_len, FLASHMLA_INT32, ViewCheck::kContiguous, {all_tokens(call)});
    call.visible_len = static_cast<int32_t const*>(args.visible_len.data);
  }
  if (!is_absent(args.sink)) {
    check.input("sink", args.sink, FLASHMLA_FP32, ViewCheck::kContiguous, {{problem.h_q, "h_q of the problem"}});
    call.sink = static_cast<float const*>(args.sink.data);
  }
}

}  // namespace

LengthsCall validate(Problem const& problem, flashmla_device device, flashmla_lengths const& lengths) {
  check_struct_size(kUpdate, "flashmla_lengths", lengths);
  ViewCheck check(kUpdate, device);
  return check_lengths(kUpdate, kOwnNames, check, problem, lengths);
}

DecodeCall validate(Problem const& problem, flashmla_device device, flashmla_decode_args const& args) {
  check_struct_size(kRun, "flashmla_decode_args", args);
  check_flags(kRun, args.flags, 0);
  // A nested struct can't grow: fields behind it would move.
  if (args.lengths.struct_size != sizeof(flashmla_lengths))
    fail_invalid(kRun, "lengths.struct_size", std::to_string(args.lengths.struct_size),
                 std::to_string(sizeof(flashmla_lengths)) + " (sizeof(flashmla_lengths); is the field set?)");
  ViewCheck check(kRun, device);
  refuse_what_is_not_built(check, args);
  LengthsCall const lengths = check_lengths(kRun, kNestedNames, check, problem, args.lengths);
  DecodeCall call;
  call.batch = lengths.batch;
  call.q_tokens = lengths.q_tokens;
  call.kv_len = lengths.kv_len;
  call.q_offsets = lengths.q_offsets;
  check_q(check, problem, args, call);
  check_cache(check, problem, args, call);
  check_small_inputs(check, problem, args, call);
  check_outputs(check, problem, args, call);
  check.check_overlap();
  return call;
}

RunBuffers validate_run_buffers(flashmla_device device, flashmla_decode_args const& args, flashmla_view const& schedule,
                                flashmla_view const& workspace, BufferBytes bytes) {
  ViewCheck check(kRun, device);
  check.input_buffer("schedule", schedule, bytes.schedule);
  check.output_buffer("workspace", workspace, bytes.workspace);
  check.known_outputs({{"out", &args.out}, {"lse", &args.lse}});
  check.known_inputs(
      {{"q", &args.q}, {"q_nope", &args.q_nope}, {"q_pe", &args.q_pe}, {"cache", &args.cache}, {"ckv", &args.ckv}, {"kpe", &args.kpe}});
  check.known_inputs({{"page_table", &args.page_table},
                      {"lengths.kv_len", &args.lengths.kv_len},
                      {"lengths.q_offsets", &args.lengths.q_offsets},
                      {"visible_len", &args.visible_len},
                      {"sink", &args.sink}});
  check.check_overlap();
  return {schedule.data, workspace.data};
}

void* validate_update_buffer(flashmla_device device, flashmla_lengths const& lengths, flashmla_view const& schedule, size_t bytes) {
  ViewCheck check(kUpdate, device);
  check.output_buffer("schedule", schedule, bytes);
  check.known_inputs({{"kv_len", &lengths.kv_len}, {"q_offsets", &lengths.q_offsets}});
  check.check_overlap();
  return schedule.data;
}

}  // namespace flashmla::core
