#include "gpu/decode_setup.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "core/names.hpp"
#include "support/cuda_oracle.hpp"

namespace flashmla::test {
namespace {

constexpr int64_t kQkDim = 576, kVDim = 512;
constexpr int64_t kTablePages = 2560;
constexpr int32_t kJunk = 2147480000;
constexpr size_t kLateScheduleBytes = size_t{64} << 10, kLateWorkspaceBytes = size_t{256} << 20;

double load_out(flashmla_dtype dtype, std::vector<char> const& data, int64_t index) {
  if (dtype == FLASHMLA_FP32) {
    float value = 0;
    std::memcpy(&value, data.data() + index * 4, 4);
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, data.data() + index * 2, 2);
  if (dtype == FLASHMLA_FP16) {
    _Float16 half = 0;
    std::memcpy(&half, &bits, 2);
    return static_cast<double>(half);
  }
  uint32_t const wide = static_cast<uint32_t>(bits) << 16;
  float value = 0;
  std::memcpy(&value, &wide, 4);
  return value;
}

}  // namespace

std::vector<int32_t> make_lens(BenchCase const& c, uint64_t seed) {
  std::vector<int32_t> lens(static_cast<size_t>(c.batch), c.kv_len);
  if (c.lens == Lens::kSkew) lens[0] = 131072;
  if (c.lens != Lens::kNormal) return lens;
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(c.kv_len, c.kv_len / 2.0);
  for (int32_t& length : lens) length = std::max(static_cast<int32_t>(normal(engine)), c.q_tokens);
  return lens;
}

DecodeSetup::DecodeSetup(BenchCase const& c, std::vector<int32_t> lens, SetupOptions const& options)
    : case_(c), lens_(std::move(lens)), options_(options) {
  problem_.h_q = c.h_q;
  problem_.h_kv = c.h_kv;
  problem_.page_tokens = c.page_tokens;
  problem_.format = core::find_kv_format(options.is_fp16 ? FLASHMLA_KV_FP16_576 : FLASHMLA_KV_BF16_576);
  problem_.q_dtype = problem_.format->dtype;
  problem_.out_dtype = options.out_dtype;
  problem_.causal = c.causal;
  problem_.scale = 1.0F / std::sqrt(576.0F);
  problem_.max_batch = c.batch;
  problem_.max_q_tokens = c.q_tokens;
  backend_ = cuda::make_backend();
  if (!options.is_plan_late) make_plan();  // first: it may be refused
  capacity_ = lens_;
  int64_t widest = 1;
  for (int32_t const length : lens_) num_pages_ += pages_of(length), widest = std::max(widest, pages_of(length));
  num_pages_ = std::max<int64_t>(num_pages_, 1);
  table_pages_ = std::max(kTablePages, widest);
  table_ = DeviceArray<int32_t>(static_cast<size_t>(c.batch * table_pages_));
  shuffle_pages(1);
  kv_len_ = DeviceArray<int32_t>(lens_);

  size_t const rows = static_cast<size_t>(c.batch) * static_cast<size_t>(c.q_tokens) * static_cast<size_t>(c.h_q);
  q_ = DeviceArray<uint16_t>(rows * kQkDim);
  fill_normal(q_.get(), q_.size(), options.is_fp16, options.q_std, 7);
  size_t const cache_elems = static_cast<size_t>(num_pages_ * c.page_tokens * c.h_kv * kQkDim);
  size_t const turns = std::min<size_t>(256, (options.rotate_bytes + cache_elems * 2 - 1) / (cache_elems * 2));
  for (size_t i = 0; i < std::max(turns, static_cast<size_t>(options.num_caches)); ++i) {
    caches_.emplace_back(cache_elems);
    fill_normal(caches_.back().get(), cache_elems, options.is_fp16, 0.1F, 100 + i);
  }
  out_ = DeviceArray<char>(rows * kVDim * core::dtype_bytes(options.out_dtype));
  lse_ = DeviceArray<float>(rows);
  schedule_ = DeviceArray<char>(plan_ ? plan_->schedule_bytes() : kLateScheduleBytes);
  workspace_ = DeviceArray<char>(plan_ ? plan_->workspace_bytes() : kLateWorkspaceBytes);
  workspace_.fill(0xff);
  schedule_.fill(0xff);
  poison_outputs();
}

int64_t DecodeSetup::pages_of(int32_t kv_len) const { return (kv_len + case_.page_tokens - 1) / case_.page_tokens; }

void DecodeSetup::make_plan() {
  core::Target target;
  target.device = {FLASHMLA_CUDA, 0};
  plan_ = backend_->make_plan(problem_, target);
  if (schedule_.get() == nullptr) return;
  if (plan_->schedule_bytes() > schedule_.bytes() || plan_->workspace_bytes() > workspace_.bytes())
    throw std::runtime_error("a late plan needs more memory than was set aside");
}

void DecodeSetup::set_lengths(std::vector<int32_t> const& lens) {
  lens_ = lens;
  kv_len_.upload(lens_);
}

void DecodeSetup::shuffle_pages(uint64_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(num_pages_));
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  std::vector<int32_t> table(table_.size(), kJunk);
  size_t next = 0;
  for (size_t b = 0; b < capacity_.size(); ++b)
    for (int64_t page = 0; page < pages_of(capacity_[b]); ++page)
      table[b * static_cast<size_t>(table_pages_) + static_cast<size_t>(page)] = order[next++];
  table_.upload(table);
}

void DecodeSetup::poison_outputs() {
  out_.fill(0xff);
  lse_.fill(0xff);
  // Fills run on the default stream, with which the tests' non-blocking streams are not ordered.
  check_call(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

int64_t DecodeSetup::total_tokens() const { return std::accumulate(lens_.begin(), lens_.end(), int64_t{0}); }

core::LengthsCall DecodeSetup::lengths() const { return {case_.batch, case_.q_tokens, kv_len_.get()}; }

core::DecodeCall DecodeSetup::call(int32_t cache) const {
  int64_t const heads = case_.h_q, tokens = case_.q_tokens;
  core::DecodeCall call;
  call.batch = case_.batch;
  call.q_tokens = case_.q_tokens;
  call.q_nope = q_.get();
  call.q_pe = q_.get() + kVDim;
  call.q_nope_stride = call.q_pe_stride = {tokens * heads * kQkDim, heads * kQkDim, kQkDim};
  uint16_t const* const base = caches_[static_cast<size_t>(cache)].get();
  call.ckv = base;
  call.kpe = base + kVDim;
  call.ckv_page_stride = call.kpe_page_stride = case_.page_tokens * case_.h_kv * kQkDim;
  call.ckv_token_stride = call.kpe_token_stride = case_.h_kv * kQkDim;
  call.ckv_head_stride = call.kpe_head_stride = kQkDim;
  call.num_pages = num_pages_;
  call.page_table = table_.get();
  call.page_table_stride = table_pages_;
  call.table_pages = table_pages_;
  call.kv_len = kv_len_.get();
  call.out = out_.get();
  call.out_stride = {tokens * heads * kVDim, heads * kVDim, kVDim};
  call.lse = lse_.get();
  call.lse_stride = {heads * tokens, 1, tokens};
  return call;
}

DecodeSetup::Errors DecodeSetup::compare(int32_t cache, std::vector<int32_t> const& requests) const {
  check_call(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  std::vector<char> const out = out_.download();
  std::vector<float> const lse = lse_.download();
  Errors worst;
  for (int32_t const request : requests) {
    std::vector<reference::Row> rows;
    for (int32_t t = 0; t < case_.q_tokens; ++t)
      for (int32_t h = 0; h < case_.h_q; ++h) rows.push_back({request, t, h});
    std::vector<double> want(rows.size() * kVDim), want_lse(rows.size());
    cuda_reference_decode(problem_, call(cache), rows, want.data(), want_lse.data());
    double difference = 0, norm = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      int64_t const row = (static_cast<int64_t>(request) * case_.q_tokens + rows[i].q_idx) * case_.h_q + rows[i].head;
      for (int64_t d = 0; d < kVDim; ++d) {
        double const got = load_out(problem_.out_dtype, out, row * kVDim + d), w = want[i * kVDim + static_cast<size_t>(d)];
        difference += (got - w) * (got - w), norm += w * w;
      }
      int64_t const lse_index = (static_cast<int64_t>(request) * case_.h_q + rows[i].head) * case_.q_tokens + rows[i].q_idx;
      double const got_lse = lse[static_cast<size_t>(lse_index)];
      if (got_lse == want_lse[i]) continue;  // equal infinities
      worst.lse_abs = std::max(worst.lse_abs, std::isfinite(got_lse) ? std::fabs(got_lse - want_lse[i]) : INFINITY);
    }
    double const error = std::sqrt(difference) / std::max(std::sqrt(norm), 1e-30);
    if (!std::isfinite(error) || !std::isfinite(worst.lse_abs))
      throw std::runtime_error("output of request " + std::to_string(request) + " is not finite");
    worst.out_l2 = std::max(worst.out_l2, error);
  }
  return worst;
}

}  // namespace flashmla::test
