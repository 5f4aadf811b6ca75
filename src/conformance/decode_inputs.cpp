#include "conformance/decode_inputs.hpp"

#include <algorithm>
#include <climits>
#include <cmath>
#include <limits>

#include "conformance/noise.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Buffer make_buffer(DeviceMemory& memory, int64_t elems, size_t elem_bytes) {
  return Buffer(memory, static_cast<size_t>(elems) * elem_bytes);
}

Buffer make_ints(DeviceMemory& memory, std::vector<int32_t> const& values) {
  Buffer buffer(memory, values.size() * sizeof(int32_t));
  std::copy(values.begin(), values.end(), buffer.host<int32_t>());
  buffer.upload();
  return buffer;
}

/// Elements from the first to the last of a [d0, d1, d2, width] tensor with these strides.
/// Of no token as of one, so that a view of none has an address.
int64_t span_elems(core::RowStrides const& s, int64_t d0, int64_t d1, int64_t d2, int64_t width) {
  return (d0 - 1) * s.batch + std::max<int64_t>(d1 - 1, 0) * s.token + (d2 - 1) * s.head + width;
}

flashmla_dtype or_default(flashmla_dtype dtype, flashmla_dtype fallback) { return dtype == FLASHMLA_DTYPE_NONE ? fallback : dtype; }

}  // namespace

flashmla_problem make_problem(DecodeCase const& c) {
  flashmla_problem problem{};
  problem.struct_size = sizeof problem;
  if (c.causal) problem.flags |= FLASHMLA_PROBLEM_CAUSAL;
  if (c.scale) problem.flags |= FLASHMLA_PROBLEM_HAS_SCALE;
  if (c.batch_invariant) problem.flags |= FLASHMLA_PROBLEM_BATCH_INVARIANT;
  problem.h_q = c.h_q;
  problem.h_kv = c.h_kv;
  problem.kv_format = c.format;
  problem.page_tokens = c.page_tokens;
  problem.out_dtype = c.out_dtype;
  problem.lse_base = c.lse_base;
  problem.lse_layout = c.lse_layout;
  problem.empty_row = c.empty_row;
  problem.chunk_tokens = c.chunk_tokens;
  problem.scale = c.scale.value_or(0.0f);
  problem.max_batch = c.batch() + c.spare_batch;
  problem.max_q_tokens = c.q_tokens + c.spare_q_tokens;
  problem.max_kv_len = c.max_kv_len;
  return problem;
}

core::Problem make_core_problem(DecodeCase const& c) {
  core::Problem problem;
  problem.h_q = c.h_q;
  problem.h_kv = c.h_kv;
  problem.format = core::find_kv_format(c.format);
  problem.page_tokens = c.page_tokens;
  problem.q_dtype = problem.format->dtype;
  problem.out_dtype = or_default(c.out_dtype, problem.q_dtype);
  problem.lse_base = c.lse_base;
  problem.lse_layout = c.lse_layout;
  problem.empty_row = c.empty_row;
  problem.causal = c.causal;
  problem.batch_invariant = c.batch_invariant;
  problem.chunk_tokens = c.chunk_tokens;
  problem.scale = c.scale.value_or(static_cast<float>(1 / std::sqrt(static_cast<double>(problem.format->qk_dim))));
  problem.max_batch = c.batch() + c.spare_batch;
  problem.max_q_tokens = c.q_tokens + c.spare_q_tokens;
  problem.max_kv_len = c.max_kv_len;
  return problem;
}

DecodeInputs::DecodeInputs(DecodeCase const& c, DeviceMemory& memory)
    : case_(c),
      memory_(memory),
      format_(*core::find_kv_format(c.format)),
      dtype_(format_.dtype),
      out_dtype_(or_default(c.out_dtype, dtype_)) {
  Random random(seed_of(c.name.c_str()));
  make_lengths(random);
  make_page_table(random);
  make_queries(random);
  make_cache(random);
  make_outputs();
}

void* DecodeInputs::element(void* base, int64_t index) const {
  return static_cast<char*>(base) + index * static_cast<int64_t>(reference::element_bytes(dtype_));
}

int32_t DecodeInputs::clamped(int32_t kv_len) const {
  int64_t const declared = case_.max_kv_len > 0 ? case_.max_kv_len : INT_MAX;
  return static_cast<int32_t>(std::clamp<int64_t>(kv_len, 0, std::min(table_pages_ * case_.page_tokens, declared)));
}

void DecodeInputs::make_lengths(Random& random) {
  kv_len_ = make_ints(memory_, case_.kv_len);
  schedule_len_ = make_ints(memory_, case_.schedule_lengths.empty() ? case_.kv_len : case_.schedule_lengths);
  if (case_.is_ragged()) {
    q_offsets_ = make_ints(memory_, case_.q_offsets);
    schedule_q_offsets_ = make_ints(memory_, case_.schedule_q_offsets.empty() ? case_.q_offsets : case_.schedule_q_offsets);
  }
  if (!case_.visible_len.empty()) visible_len_ = make_ints(memory_, case_.visible_len);
  if (case_.sink == Sink::kNone) return;
  sink_ = make_buffer(memory_, case_.h_q, sizeof(float));
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int32_t head = 0; head < case_.h_q; ++head) {
    float const number = random.normal() + 3;  // an lse of some hundred keys is about 5 or 6
    bool const infinite = case_.sink == Sink::kInfinite && head % 3 != 2;
    sink_.host<float>()[head] = infinite ? (head % 3 == 0 ? kInfinity : -kInfinity) : number;
  }
  sink_.upload();
}

void DecodeInputs::make_page_table(Random& random) {
  int64_t widest = 0;
  for (int32_t const kv_len : case_.kv_len) widest = std::max(widest, ceil_div(std::max(kv_len, 0), case_.page_tokens));
  table_pages_ = case_.table_pages > 0 ? case_.table_pages : widest + 3;
  table_stride_ = table_pages_ + 5;
  int64_t needed = 0;
  for (int32_t const kv_len : case_.kv_len) needed += ceil_div(clamped(kv_len), case_.page_tokens);
  num_pages_ = case_.low_pages + needed + std::min<int64_t>(needed / 4, 64) + 3;

  std::vector<int32_t> ids(static_cast<size_t>(num_pages_));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  if (case_.low_pages == 0) random.shuffle(ids);

  constexpr int32_t kJunk[] = {2147480000, -1, INT_MIN, INT_MAX};
  page_table_ = make_buffer(memory_, (case_.batch() - 1) * table_stride_ + table_pages_, sizeof(int32_t));
  int32_t* const table = page_table_.host<int32_t>();
  for (int32_t request = 0; request < case_.batch(); ++request) {
    int64_t const used = ceil_div(clamped(case_.kv_len[static_cast<size_t>(request)]), case_.page_tokens);
    for (int64_t entry = 0; entry < table_pages_; ++entry) {
      int32_t& id = table[request * table_stride_ + entry];
      if (entry >= used) {
        id = kJunk[(request + entry) % 4];
        continue;
      }
      id = ids.back();
      ids.pop_back();
    }
  }
}

core::RowStrides DecodeInputs::dense_strides(int64_t head) const {
  int64_t const token = case_.h_q * head;
  return {case_.is_ragged() ? 0 : case_.q_tokens * token, token, head};
}

int64_t DecodeInputs::row_elems(core::RowStrides const& s, int64_t width) const {
  if (case_.is_ragged()) return span_elems(s, 1, case_.total_q(), case_.h_q, width);
  return span_elems(s, case_.batch(), case_.q_tokens, case_.h_q, width);
}

void DecodeInputs::make_queries(Random& random) {
  bool const pair = case_.q_layout == QLayout::kPair;
  int64_t const width = pair ? format_.latent : format_.qk_dim;
  q_stride_ = dense_strides(case_.q_layout == QLayout::kPadded ? 640 : width);
  if (case_.q_layout == QLayout::kUnaligned) {
    q_offset_ = 1;
    q_stride_ = {case_.is_ragged() ? 0 : case_.q_tokens * 579, 579, case_.total_q() * 579 + 3};
  }
  q_pe_stride_ = pair ? dense_strides(format_.rope) : q_stride_;

  size_t const bytes = reference::element_bytes(dtype_);
  q_ = make_buffer(memory_, q_offset_ + row_elems(q_stride_, width), bytes);
  if (pair) q_pe_ = make_buffer(memory_, row_elems(q_pe_stride_, format_.rope), bytes);
  for (int32_t b = 0; b < case_.batch(); ++b) {
    core::QueryTokens const tokens = case_.tokens_of(b);  // rows that no request has stay NaN
    for (int64_t t = tokens.first; t < tokens.first + tokens.count; ++t)
      for (int64_t h = 0; h < case_.h_q; ++h) {
        int64_t const row = q_offset_ + b * q_stride_.batch + t * q_stride_.token + h * q_stride_.head;
        fill_noise(random, dtype_, case_.q_std, element(q_.host<void>(), row), width);
        if (case_.has_line()) reference::store(dtype_, q_.host<void>(), row + width - 1, 1 / make_core_problem(case_).scale);
        if (!pair) continue;
        int64_t const pe = b * q_pe_stride_.batch + t * q_pe_stride_.token + h * q_pe_stride_.head;
        fill_noise(random, dtype_, case_.q_std, element(q_pe_.host<void>(), pe), format_.rope);
      }
  }
  q_.upload();
  if (pair) q_pe_.upload();
}

void DecodeInputs::make_cache(Random& random) {
  bool const pair = case_.cache_layout == CacheLayout::kPair;
  bool const padded = case_.cache_layout == CacheLayout::kPaddedPages;
  bool const unaligned = case_.cache_layout == CacheLayout::kUnaligned;
  int64_t const tokens = case_.page_tokens, heads = case_.h_kv;
  int64_t const width = pair ? format_.latent : format_.qk_dim;
  int64_t const head = case_.cache_layout == CacheLayout::kPaddedTokens ? 640 : width;
  ckv_stride_ = {tokens * heads * head + (padded ? 512 : unaligned ? 1 : 0), heads * head, head};
  kpe_stride_ = pair ? core::RowStrides{tokens * heads * format_.rope + 128, heads * format_.rope, format_.rope} : ckv_stride_;
  cache_offset_ = unaligned ? 1 : 0;

  size_t const bytes = reference::element_bytes(dtype_);
  ckv_ = make_buffer(memory_, cache_offset_ + span_elems(ckv_stride_, num_pages_, tokens, heads, width), bytes);
  if (pair) kpe_ = make_buffer(memory_, span_elems(kpe_stride_, num_pages_, tokens, heads, format_.rope), bytes);
  for (int32_t request = 0; request < case_.batch(); ++request) {
    int32_t const kv_len = clamped(case_.kv_len[static_cast<size_t>(request)]);
    for (int32_t first = 0; first < kv_len; first += case_.page_tokens) {
      int32_t const page = page_table_.host<int32_t>()[request * table_stride_ + first / case_.page_tokens];
      fill_page(random, page, std::min(case_.page_tokens, kv_len - first));
      if (case_.has_line()) draw_line(page, first, kv_len);
    }
  }
  ckv_.upload();
  if (pair) kpe_.upload();

  // Only now do entries go bad, so that good data lies where no entry leads.
  for (BadPage const& bad : case_.bad_pages) page_table_.host<int32_t>()[bad.request * table_stride_ + bad.entry] = bad.id;
  page_table_.upload();
}

void DecodeInputs::fill_page(Random& random, int32_t page, int32_t num_tokens) {
  bool const pair = case_.cache_layout == CacheLayout::kPair;
  for (int64_t token = 0; token < num_tokens; ++token)
    for (int64_t head = 0; head < case_.h_kv; ++head) {
      int64_t const ckv = cache_offset_ + page * ckv_stride_.batch + token * ckv_stride_.token + head * ckv_stride_.head;
      copy_noise(random, dtype_, element(ckv_.host<void>(), ckv), pair ? format_.latent : format_.qk_dim);
      if (!pair) continue;
      int64_t const kpe = page * kpe_stride_.batch + token * kpe_stride_.token + head * kpe_stride_.head;
      copy_noise(random, dtype_, element(kpe_.host<void>(), kpe), format_.rope);
    }
}

void DecodeInputs::draw_line(int32_t page, int32_t first, int32_t kv_len) {
  for (int32_t token = 0; token < std::min(case_.page_tokens, kv_len - first); ++token) {
    float const place = static_cast<float>(first + token) / static_cast<float>(std::max(kv_len - 1, 1));
    float const score = case_.first_score + (case_.last_score - case_.first_score) * place;
    for (int64_t head = 0; head < case_.h_kv; ++head) {
      int64_t const key = cache_offset_ + page * ckv_stride_.batch + token * ckv_stride_.token + head * ckv_stride_.head;
      reference::store(dtype_, ckv_.host<void>(), key + format_.qk_dim - 1, score);
    }
  }
}

void DecodeInputs::make_outputs() {
  int64_t const tokens = case_.is_ragged() ? case_.total_q() : case_.q_tokens, heads = case_.h_q;
  out_stride_ = dense_strides(case_.padded_out ? format_.v_dim + 16 : format_.v_dim);
  out_ = make_buffer(memory_, row_elems(out_stride_, format_.v_dim), reference::element_bytes(out_dtype_));
  lse_stride_ = dense_strides(1);
  if (case_.lse_layout != FLASHMLA_LSE_TOKENS_HEADS) lse_stride_ = {case_.is_ragged() ? 0 : heads * tokens, 1, tokens};
  if (case_.want_lse) lse_ = make_buffer(memory_, std::max<int64_t>(case_.total_q(), 1) * heads, sizeof(float));
}

flashmla_lengths DecodeInputs::lengths_of(Buffer const& kv_len, Buffer const& q_offsets) const {
  auto const ints = [&](Buffer const& buffer) {
    return make_view(buffer.device(), FLASHMLA_INT32, memory_.device(), {static_cast<int64_t>(buffer.bytes() / sizeof(int32_t))}, {1});
  };
  flashmla_lengths lengths{};
  lengths.struct_size = sizeof lengths;
  lengths.q_tokens = case_.bound_by_default ? 0 : case_.q_tokens;
  lengths.kv_len = ints(kv_len);
  if (q_offsets.device()) lengths.q_offsets = ints(q_offsets);
  return lengths;
}

flashmla_lengths DecodeInputs::schedule_lengths() const {
  flashmla_lengths lengths = lengths_of(schedule_len_, schedule_q_offsets_);
  if (case_.schedule_is_uniform) lengths.q_offsets = {};
  return lengths;
}

flashmla_view DecodeInputs::row_view(void* data, flashmla_dtype dtype, core::RowStrides const& s, int64_t width) const {
  flashmla_device const device = memory_.device();
  if (case_.is_ragged()) return make_view(data, dtype, device, {case_.total_q(), case_.h_q, width}, {s.token, s.head, 1});
  return make_view(data, dtype, device, {case_.batch(), case_.q_tokens, case_.h_q, width}, {s.batch, s.token, s.head, 1});
}

flashmla_view DecodeInputs::lse_view() const {
  flashmla_device const device = memory_.device();
  int64_t const heads = case_.h_q, total = case_.total_q(), tokens = case_.q_tokens;
  void* const data = lse_.device();
  if (case_.lse_layout == FLASHMLA_LSE_TOKENS_HEADS) return make_view(data, FLASHMLA_FP32, device, {total, heads}, {heads, 1});
  if (case_.is_ragged()) return make_view(data, FLASHMLA_FP32, device, {heads, total}, {total, 1});
  return make_view(data, FLASHMLA_FP32, device, {case_.batch(), heads, tokens}, {heads * tokens, tokens, 1});
}

flashmla_decode_args DecodeInputs::args() const {
  flashmla_device const device = memory_.device();
  auto const pages = [&](void* data, core::RowStrides const& s, int64_t width) {
    if (case_.rank3_cache) return make_view(data, dtype_, device, {num_pages_, case_.page_tokens, width}, {s.batch, s.token, 1});
    return make_view(data, dtype_, device, {num_pages_, case_.page_tokens, case_.h_kv, width}, {s.batch, s.token, s.head, 1});
  };
  core::DecodeCall const c = device_call();

  flashmla_decode_args args{};
  args.struct_size = sizeof args;
  bool const q_pair = case_.q_layout == QLayout::kPair, cache_pair = case_.cache_layout == CacheLayout::kPair;
  (q_pair ? args.q_nope : args.q) = row_view(const_cast<void*>(c.q_nope), dtype_, q_stride_, q_pair ? format_.latent : format_.qk_dim);
  if (q_pair) args.q_pe = row_view(q_pe_.device(), dtype_, q_pe_stride_, format_.rope);
  (cache_pair ? args.ckv : args.cache) = pages(const_cast<void*>(c.ckv), ckv_stride_, cache_pair ? format_.latent : format_.qk_dim);
  if (cache_pair) args.kpe = pages(kpe_.device(), kpe_stride_, format_.rope);
  args.page_table = make_view(page_table_.device(), FLASHMLA_INT32, device, {case_.batch(), table_pages_}, {table_stride_, 1});
  args.lengths = lengths_of(kv_len_, q_offsets_);
  if (visible_len_.device()) args.visible_len = make_view(visible_len_.device(), FLASHMLA_INT32, device, {case_.total_q()}, {1});
  if (sink_.device()) args.sink = make_view(sink_.device(), FLASHMLA_FP32, device, {case_.h_q}, {1});
  args.out = row_view(out_.device(), out_dtype_, out_stride_, format_.v_dim);
  if (lse_.device()) args.lse = lse_view();
  return args;
}

core::DecodeCall DecodeInputs::device_call() const { return call(false); }
core::DecodeCall DecodeInputs::host_call() const { return call(true); }

core::DecodeCall DecodeInputs::call(bool on_host) const {
  auto const at = [on_host](Buffer const& buffer) {
    return buffer.device() == nullptr ? nullptr : on_host ? buffer.host<void>() : buffer.device();
  };
  core::DecodeCall call;
  call.batch = case_.batch();
  call.q_tokens = case_.q_tokens;
  call.total_q = case_.total_q();
  call.q_fused = case_.q_layout != QLayout::kPair;
  call.cache_fused = case_.cache_layout != CacheLayout::kPair;
  call.q_nope = element(at(q_), q_offset_);
  call.q_pe = call.q_fused ? element(at(q_), q_offset_ + format_.latent) : at(q_pe_);
  call.q_nope_stride = q_stride_;
  call.q_pe_stride = q_pe_stride_;
  call.ckv = element(at(ckv_), cache_offset_);
  call.kpe = call.cache_fused ? element(at(ckv_), cache_offset_ + format_.latent) : at(kpe_);
  call.ckv_page_stride = ckv_stride_.batch, call.ckv_token_stride = ckv_stride_.token, call.ckv_head_stride = ckv_stride_.head;
  call.kpe_page_stride = kpe_stride_.batch, call.kpe_token_stride = kpe_stride_.token, call.kpe_head_stride = kpe_stride_.head;
  call.num_pages = num_pages_;
  call.page_table = static_cast<int32_t const*>(at(page_table_));
  call.page_table_stride = table_stride_;
  call.table_pages = table_pages_;
  call.kv_len = static_cast<int32_t const*>(at(kv_len_));
  call.q_offsets = static_cast<int32_t const*>(at(q_offsets_));
  call.visible_len = static_cast<int32_t const*>(at(visible_len_));
  call.sink = static_cast<float const*>(at(sink_));
  call.out = at(out_);
  call.out_stride = out_stride_;
  call.lse = static_cast<float*>(at(lse_));
  call.lse_stride = lse_stride_;
  return call;
}

void DecodeInputs::poison_outputs() {
  out_.poison();
  if (lse_.device()) lse_.poison();
}

void DecodeInputs::download_outputs() {
  out_.download();
  if (lse_.device()) lse_.download();
}

std::string DecodeInputs::overwritten_spare_rows() const {
  std::vector<bool> is_used(static_cast<size_t>(case_.total_q()), false);
  for (int32_t b = 0; b < case_.batch(); ++b) {
    core::QueryTokens const tokens = case_.tokens_of(b);
    std::fill_n(is_used.begin() + tokens.first, tokens.count, true);
  }
  size_t const elem = reference::element_bytes(out_dtype_);
  auto const is_poison = [](Buffer const& buffer, int64_t first, size_t bytes) {
    std::byte const* const begin = buffer.host() + first;
    return std::all_of(begin, begin + bytes, [](std::byte b) { return b == std::byte{0xff}; });
  };
  for (int64_t t = 0; t < case_.total_q(); ++t)
    for (int64_t h = 0; h < case_.h_q && !is_used[static_cast<size_t>(t)]; ++h) {
      int64_t const out = (t * out_stride_.token + h * out_stride_.head) * static_cast<int64_t>(elem);
      int64_t const lse = (t * lse_stride_.token + h * lse_stride_.head) * static_cast<int64_t>(sizeof(float));
      std::string const row = std::to_string(t) + ", " + std::to_string(h) + "], which no request has";
      if (!is_poison(out_, out, static_cast<size_t>(format_.v_dim) * elem)) return "out[" + row;
      if (lse_.device() && !is_poison(lse_, lse, sizeof(float))) return "lse of row [" + row;
    }
  return "";
}

std::string DecodeInputs::overwritten() const {
  if (!out_.guards_intact()) return "memory around out";
  if (lse_.device() && !lse_.guards_intact()) return "memory around lse";
  if (case_.is_ragged())
    if (std::string text = overwritten_spare_rows(); !text.empty()) return text;
  if (!case_.padded_out) return "";
  size_t const elem = reference::element_bytes(out_dtype_), row = static_cast<size_t>(out_stride_.head) * elem,
               used = static_cast<size_t>(format_.v_dim) * elem;
  for (size_t i = 0; i < out_.bytes(); ++i)
    if (i % row >= used && out_.host()[i] != std::byte{0xff}) return "padding of out behind row " + std::to_string(i / row);
  return "";
}

}  // namespace flashmla::conformance
