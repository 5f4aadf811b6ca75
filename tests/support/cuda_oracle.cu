// One CTA a row, everything in fp64, no tensor cores, no splitting: slow and plain on purpose.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/query_tokens.hpp"
#include "core/visible.hpp"
#include "support/cuda_oracle.hpp"

namespace flashmla::test {
namespace {

constexpr int kThreads = 256;  // also the tokens of a tile
constexpr int kWarps = kThreads / 32;
constexpr int kMaxDims = 576;
constexpr int kColumnsAThread = 2;  // v_dim <= 512

void check(cudaError_t status, char const* call) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("oracle: ") + call + ": " + cudaGetErrorString(status));
}

struct OracleParams {
  core::DecodeCall call;
  int32_t h_q, h_kv, latent, rope, v_dim, page_tokens;
  int64_t max_kv_len;  // 0: the table rules
  bool is_fp16, is_causal, is_base_2;
  double scale;
  double empty_lse;
  reference::Row const* rows;  // [num_rows]
  double* out;                 // [num_rows, v_dim]
  double* lse;                 // [num_rows]
};

struct Smem {
  double q[kMaxDims];
  double p[kThreads];        // scores, then weights, of a tile
  int64_t latent[kThreads];  // element of ckv where a token's key begins; -1: masked
  int64_t rope[kThreads];    // element of kpe
  double reduced[kWarps];
};

__device__ double load(OracleParams const& p, void const* data, int64_t index) {
  if (p.is_fp16) return static_cast<double>(__half2float(static_cast<__half const*>(data)[index]));
  return static_cast<double>(__bfloat162float(static_cast<__nv_bfloat16 const*>(data)[index]));
}

__device__ int64_t element(OracleParams const& p, core::RowStrides const& s, reference::Row const& row) {
  int64_t const token = core::query_tokens(p.call.query_bounds(), row.request).first + int64_t{row.q_idx};
  return row.request * s.batch + token * s.token + row.head * s.head;
}

__device__ int32_t visible_of(OracleParams const& p, reference::Row const& row) {
  int64_t const table = min(p.call.table_pages * p.page_tokens, int64_t{INT32_MAX});
  int64_t const capacity = p.max_kv_len > 0 ? min(table, p.max_kv_len) : table;
  int64_t const kv_len = p.call.kv_len[row.request];
  auto const clamped = static_cast<int32_t>(kv_len < 0 ? 0 : min(kv_len, capacity));
  core::QueryBounds const bounds = p.call.query_bounds();
  core::QueryTokens const tokens = core::query_tokens(bounds, row.request);
  int32_t const* const visible =
      p.call.visible_len == nullptr ? nullptr : p.call.visible_len + core::visible_offset(bounds, row.request, tokens);
  return core::num_visible(clamped, tokens.count, row.q_idx, p.is_causal, visible);
}

template <class Op>
__device__ double reduce(Smem& s, double value, Op op) {
  for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xffffffffu, value, step));
  __syncthreads();
  if (threadIdx.x % 32 == 0) s.reduced[threadIdx.x / 32] = value;
  __syncthreads();
  double all = s.reduced[0];
  for (int w = 1; w < kWarps; ++w) all = op(all, s.reduced[w]);
  return all;
}

__device__ void load_query(Smem& s, OracleParams const& p, reference::Row const& row) {
  for (int d = static_cast<int>(threadIdx.x); d < p.latent + p.rope; d += kThreads)
    s.q[d] = d < p.latent ? load(p, p.call.q_nope, element(p, p.call.q_nope_stride, row) + d)
                          : load(p, p.call.q_pe, element(p, p.call.q_pe_stride, row) + d - p.latent);
}

__device__ void find_keys(Smem& s, OracleParams const& p, reference::Row const& row, int32_t first, int32_t visible) {
  int32_t const token = first + static_cast<int32_t>(threadIdx.x);
  s.latent[threadIdx.x] = -1;
  if (token >= visible) return;
  int64_t const page = p.call.page_table[row.request * p.call.page_table_stride + token / p.page_tokens];
  int64_t const offset = token % p.page_tokens, kv_head = row.head / (p.h_q / p.h_kv);
  if (page < 0 || page >= p.call.num_pages) return;
  s.latent[threadIdx.x] = page * p.call.ckv_page_stride + offset * p.call.ckv_token_stride + kv_head * p.call.ckv_head_stride;
  s.rope[threadIdx.x] = page * p.call.kpe_page_stride + offset * p.call.kpe_token_stride + kv_head * p.call.kpe_head_stride;
}

// A warp a token, lanes along the dims.
__device__ void score_tile(Smem& s, OracleParams const& p) {
  int const lane = static_cast<int>(threadIdx.x) % 32;
  for (int t = static_cast<int>(threadIdx.x) / 32; t < kThreads; t += kWarps) {
    double sum = 0;
    if (s.latent[t] >= 0) {
      for (int d = lane; d < p.latent; d += 32) sum += s.q[d] * load(p, p.call.ckv, s.latent[t] + d);
      for (int d = lane; d < p.rope; d += 32) sum += s.q[p.latent + d] * load(p, p.call.kpe, s.rope[t] + d);
    }
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (lane == 0) s.p[t] = s.latent[t] >= 0 ? p.scale * sum : -INFINITY;
  }
}

struct RowState {
  double max = -INFINITY, sum = 0, acc[kColumnsAThread] = {};
};

__device__ void add_tile(Smem& s, OracleParams const& p, RowState& state) {
  auto const bigger = [](double a, double b) { return fmax(a, b); };
  double const score = s.p[threadIdx.x];
  double const tile_max = reduce(s, score, bigger);
  if (tile_max == -INFINITY) return;
  double const new_max = fmax(state.max, tile_max);
  double const correction = exp(state.max - new_max);
  state.max = new_max;
  double const weight = s.latent[threadIdx.x] >= 0 ? exp(score - new_max) : 0;
  s.p[threadIdx.x] = weight;
  state.sum = state.sum * correction + weight;
  __syncthreads();
  for (int c = 0; c < kColumnsAThread; ++c) {
    int const column = static_cast<int>(threadIdx.x) + c * kThreads;
    if (column >= p.v_dim) continue;
    double acc = state.acc[c] * correction;
    for (int t = 0; t < kThreads; ++t)
      if (s.latent[t] >= 0) acc += s.p[t] * load(p, p.call.ckv, s.latent[t] + column);
    state.acc[c] = acc;
  }
}

__global__ void __launch_bounds__(kThreads) oracle_kernel(OracleParams const __grid_constant__ p) {
  __shared__ Smem s;
  reference::Row const row = p.rows[blockIdx.x];
  int32_t const visible = visible_of(p, row);
  load_query(s, p, row);
  RowState state;
  for (int32_t first = 0; first < visible; first += kThreads) {
    __syncthreads();
    find_keys(s, p, row, first, visible);
    __syncthreads();
    score_tile(s, p);
    __syncthreads();
    add_tile(s, p, state);
    if (first > INT32_MAX - kThreads) break;
  }
  double const sum = reduce(s, state.sum, [](double a, double b) { return a + b; });
  double const lse = state.max + log(sum);
  bool const is_empty = state.max == -INFINITY;
  double const sink = p.call.sink == nullptr || is_empty ? 1 : 1 / (1 + exp(static_cast<double>(p.call.sink[row.head]) - lse));
  for (int c = 0; c < kColumnsAThread; ++c) {
    int const column = static_cast<int>(threadIdx.x) + c * kThreads;
    if (column < p.v_dim) p.out[static_cast<int64_t>(blockIdx.x) * p.v_dim + column] = is_empty ? 0 : state.acc[c] / sum * sink;
  }
  if (threadIdx.x == 0) p.lse[blockIdx.x] = is_empty ? p.empty_lse : (p.is_base_2 ? lse / 0.693147180559945309417 : lse);
}

// Device memory that goes away with its scope. Everything runs on the calling thread's own stream, so that several
// threads can check cases side by side.
template <class T>
class Scratch {
 public:
  explicit Scratch(size_t count) {
    check(cudaMallocAsync(&data_, std::max<size_t>(count, 1) * sizeof(T), cudaStreamPerThread), "cudaMallocAsync");
  }
  ~Scratch() { cudaFreeAsync(data_, cudaStreamPerThread); }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;
  [[nodiscard]] T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class T>
void copy_out(T* to, Scratch<T> const& from, size_t count) {
  check(cudaMemcpyAsync(to, from.get(), count * sizeof(T), cudaMemcpyDeviceToHost, cudaStreamPerThread), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(cudaStreamPerThread), "cudaStreamSynchronize");
}

OracleParams params_of(core::Problem const& problem, core::DecodeCall const& call) {
  core::KvFormat const& format = *problem.format;
  if (format.qk_dim > kMaxDims || format.v_dim > kColumnsAThread * kThreads)
    throw std::runtime_error("oracle: format: got one wider than 576, expected a plain 576 format");
  double const infinity = std::numeric_limits<double>::infinity();
  OracleParams p{};
  p.call = call;
  p.h_q = problem.h_q, p.h_kv = problem.h_kv;
  p.latent = format.latent, p.rope = format.rope, p.v_dim = format.v_dim;
  p.page_tokens = problem.page_tokens;
  p.max_kv_len = problem.max_kv_len;
  p.is_fp16 = format.dtype == FLASHMLA_FP16;
  p.is_causal = problem.causal;
  p.is_base_2 = problem.lse_base == FLASHMLA_LSE_BASE_2;
  p.scale = problem.scale;
  p.empty_lse = problem.empty_row == FLASHMLA_EMPTY_LSE_PLUS_INF ? infinity : -infinity;
  return p;
}

class CudaOracle final : public conformance::Oracle {
 public:
  [[nodiscard]] flashmla_device_kind memory() const override { return FLASHMLA_CUDA; }
  // Rows are cheap here; what bounds a case is copying fp64 rows to the host and comparing them there.
  [[nodiscard]] int64_t row_budget(double mean_kv_len) const override { return mean_kv_len > 100000 ? 256 : 2048; }
  void decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
              double* lse) override {
    cuda_reference_decode(problem, call, rows, out, lse);
  }
};

}  // namespace

void cuda_reference_decode(core::Problem const& problem, core::DecodeCall const& call, std::span<reference::Row const> rows, double* out,
                           double* lse) {
  if (rows.empty()) return;
  size_t const numbers = rows.size() * static_cast<size_t>(problem.format->v_dim);
  Scratch<reference::Row> device_rows(rows.size());
  Scratch<double> device_out(numbers), device_lse(rows.size());
  check(cudaMemcpyAsync(device_rows.get(), rows.data(), rows.size_bytes(), cudaMemcpyHostToDevice, cudaStreamPerThread), "cudaMemcpyAsync");
  OracleParams p = params_of(problem, call);
  p.rows = device_rows.get(), p.out = device_out.get(), p.lse = device_lse.get();
  oracle_kernel<<<static_cast<unsigned>(rows.size()), kThreads, 0, cudaStreamPerThread>>>(p);
  check(cudaGetLastError(), "oracle_kernel");
  copy_out(out, device_out, numbers);
  copy_out(lse, device_lse, rows.size());
}

std::unique_ptr<conformance::Oracle> make_cuda_oracle() { return std::make_unique<CudaOracle>(); }

}  // namespace flashmla::test
