#include "bench/cpu_ceilings.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#if defined(__x86_64__)
// GCC 12's own intrinsics read an undefined vector on purpose and warn about it where they are inlined (GCC PR 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace flashmla::bench {

namespace {

constexpr size_t kReadBytes = size_t{256} << 20;  // beyond any last-level cache that a few threads see
constexpr int kRounds = 3;
constexpr int kChains = 12;  // independent accumulators: latency 4 to 6 at two a cycle
constexpr long kSteps = 400000;

/// Where results go, so that no loop can be removed.
std::atomic<double> g_sink{0};

typedef float Quad __attribute__((vector_size(16)));

// Each peak loop returns the flop it did.
double portable_peak() {
  Quad acc[kChains];
  Quad const a = {1e-9f, 2e-9f, 3e-9f, 4e-9f}, b = {0.5f, 0.25f, 0.125f, 0.0625f};
  for (auto& x : acc) x = a;
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = acc[i] * b + a;
  }
  for (auto const& x : acc) g_sink = g_sink + x[0];
  return static_cast<double>(kChains) * 4 * 2 * kSteps;
}

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx2,fma")
double avx2_peak() {
  __m256 acc[kChains];
  __m256 const a = _mm256_set1_ps(1e-9f), b = _mm256_set1_ps(0.5f);
  for (auto& x : acc) x = a;
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm256_fmadd_ps(acc[i], b, a);
  }
  for (auto const& x : acc) g_sink = g_sink + _mm256_cvtss_f32(x);
  return static_cast<double>(kChains) * 8 * 2 * kSteps;
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
double avx512_peak() {
  __m512 acc[kChains];
  __m512 const a = _mm512_set1_ps(1e-9f), b = _mm512_set1_ps(0.5f);
  for (auto& x : acc) x = a;
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_fmadd_ps(acc[i], b, a);
  }
  for (auto const& x : acc) g_sink = g_sink + _mm512_cvtss_f32(x);
  return static_cast<double>(kChains) * 16 * 2 * kSteps;
}
double bf16_dot_peak() {
  __m512 acc[kChains];
  __m512bh const a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3f00);
  for (auto& x : acc) x = _mm512_setzero_ps();
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = _mm512_dpbf16_ps(acc[i], a, b);
  }
  for (auto const& x : acc) g_sink = g_sink + _mm512_cvtss_f32(x);
  return static_cast<double>(kChains) * 32 * 2 * kSteps;
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
constexpr TileConfig kTiles = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
/// Tiles of numbers as a cache has them: with zeros the unit draws less power and its clock stays 16 to 20 % higher
/// (docs/perf/2026-11-26-cpu.md).
double tile_peak() {
  alignas(64) uint16_t numbers[4][512];
  uint32_t bits = 1;
  for (auto& tile : numbers) {
    for (uint16_t& x : tile) {
      bits = bits * 1664525u + 1013904223u;
      x = static_cast<uint16_t>(0x3f00u + (bits >> 16 & 0xffu) + (bits >> 9 & 0x8000u));  // 0.5 to 2 of either sign
    }
  }
  _tile_loadconfig(&kTiles);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  __atomic_signal_fence(__ATOMIC_SEQ_CST);  // GCC's intrinsics do not say that they read memory
  _tile_loadd(4, numbers[0], 64);
  _tile_loadd(5, numbers[1], 64);
  _tile_loadd(6, numbers[2], 64);
  _tile_loadd(7, numbers[3], 64);
  constexpr long kTileSteps = kSteps / 4;
  for (long s = 0; s < kTileSteps; ++s) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 5, 6);
    _tile_dpbf16ps(2, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_release();
  return 4.0 * 16 * 16 * 32 * 2 * kTileSteps;
}
#pragma GCC pop_options

flashmla_isa best_isa() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw")) return FLASHMLA_ISA_AVX512_BF16;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) return FLASHMLA_ISA_AVX512F;
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? FLASHMLA_ISA_AVX2 : FLASHMLA_ISA_PORTABLE;
}
#else
double avx2_peak() { return portable_peak(); }
double avx512_peak() { return portable_peak(); }
double bf16_dot_peak() { return portable_peak(); }
double tile_peak() { return portable_peak(); }
#if defined(__aarch64__)
flashmla_isa best_isa() { return FLASHMLA_ISA_NEON; }
#else
flashmla_isa best_isa() { return FLASHMLA_ISA_PORTABLE; }
#endif
#endif

#if defined(__aarch64__)
double neon_peak() {
  float32x4_t acc[kChains];
  float32x4_t const a = vdupq_n_f32(1e-9f), b = vdupq_n_f32(0.5f);
  for (auto& x : acc) x = a;
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = vfmaq_f32(a, acc[i], b);
  }
  for (auto const& x : acc) g_sink = g_sink + vgetq_lane_f32(x, 0);
  return static_cast<double>(kChains) * 4 * 2 * kSteps;
}
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+bf16")
double neon_dot_peak() {
  float32x4_t acc[kChains];
  bfloat16x8_t const a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f80)), b = vreinterpretq_bf16_u16(vdupq_n_u16(0x3f00));
  for (auto& x : acc) x = vdupq_n_f32(0);
  for (long s = 0; s < kSteps; ++s) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = vbfdotq_f32(acc[i], a, b);
  }
  for (auto const& x : acc) g_sink = g_sink + vgetq_lane_f32(x, 0);
  return static_cast<double>(kChains) * 8 * 2 * kSteps;
}
#pragma GCC pop_options
#else
double neon_peak() { return portable_peak(); }
double neon_dot_peak() { return portable_peak(); }
#endif

using PeakLoop = double (*)();
PeakLoop fp32_loop(flashmla_isa isa) {
  switch (isa) {
    case FLASHMLA_ISA_AMX_BF16:
    case FLASHMLA_ISA_AVX512_BF16:
    case FLASHMLA_ISA_AVX512F:
      return &avx512_peak;
    case FLASHMLA_ISA_AVX2:
      return &avx2_peak;
    case FLASHMLA_ISA_NEON:
    case FLASHMLA_ISA_NEON_BF16:
      return &neon_peak;
    default:
      return &portable_peak;
  }
}
PeakLoop bf16_loop(flashmla_isa isa) {
  if (isa == FLASHMLA_ISA_AMX_BF16) return &tile_peak;
  if (isa == FLASHMLA_ISA_NEON_BF16) return &neon_dot_peak;
  return isa == FLASHMLA_ISA_AVX512_BF16 ? &bf16_dot_peak : fp32_loop(isa);
}

/// Reads doubles [begin, end) and returns the bytes read.
double read_range(double const* begin, double const* end) {
  typedef double Pair __attribute__((vector_size(16)));
  Pair sum[8] = {};
  for (double const* p = begin; p + 16 <= end; p += 16) {
    __builtin_prefetch(p + 1024, 0, 2);  // 8 KiB ahead and no further than L2: 2 KiB ahead, to L1, reads a sixth less
    __builtin_prefetch(p + 1032, 0, 2);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      Pair value;
      __builtin_memcpy(&value, p + 2 * i, sizeof value);
      sum[i] += value;
    }
  }
  for (Pair const& s : sum) g_sink = g_sink + s[0] + s[1];
  return static_cast<double>(end - begin) * sizeof(double);
}

/// Units of work a second, all threads together: each runs `work(thread)`, which returns its units.
template <class Work>
double rate(int threads, Work const& work) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::vector<double> units(static_cast<size_t>(threads));
    std::vector<std::thread> others;
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    for (int t = 1; t < threads; ++t) {
      others.emplace_back([&, t] {
        ++ready;
        while (!go) std::this_thread::yield();
        units[static_cast<size_t>(t)] = work(t);
      });
    }
    while (ready < threads - 1) std::this_thread::yield();
    Clock::time_point const start = Clock::now();
    go = true;
    units[0] = work(0);
    for (std::thread& other : others) other.join();
    double const seconds = std::chrono::duration<double>(Clock::now() - start).count();
    double total = 0;
    for (double const u : units) total += u;
    best = std::max(best, total / seconds);
  }
  return best;
}

}  // namespace

CpuProbe::CpuProbe(flashmla_isa isa, int threads)
    : isa_(isa == FLASHMLA_ISA_AUTO ? best_isa() : isa), threads_(std::max(threads, 1)), memory_(kReadBytes / sizeof(double), 1.0) {}

CpuCeilings CpuProbe::measure() const {
  PeakLoop const fp32 = fp32_loop(isa_), bf16 = bf16_loop(isa_);
  CpuCeilings result;
  result.fp32_gflops = rate(threads_, [&](int) { return fp32(); }) * 1e-9;
  result.gflops = bf16 == fp32 ? result.fp32_gflops : rate(threads_, [&](int) { return bf16(); }) * 1e-9;
  double const* const data = memory_.data();
  size_t const share = memory_.size() / static_cast<size_t>(threads_);
  result.read_gbps =
      rate(threads_,
           [&](int t) { return read_range(data + static_cast<size_t>(t) * share, data + (static_cast<size_t>(t) + 1) * share); }) *
      1e-9;
  return result;
}

CpuCeilings measure_cpu_ceilings(flashmla_isa isa, int threads) { return CpuProbe(isa, threads).measure(); }

CpuCeilings best_of(CpuCeilings const& a, CpuCeilings const& b) {
  return {std::max(a.gflops, b.gflops), std::max(a.fp32_gflops, b.fp32_gflops), std::max(a.read_gbps, b.read_gbps)};
}

double decode_floor_seconds(CpuCeilings const& ceilings, flashmla_dtype cache_dtype, double flop, double bytes) {
  double const gflops = cache_dtype == FLASHMLA_BF16 ? ceilings.gflops : ceilings.fp32_gflops;
  return std::max(flop / (gflops * 1e9), bytes / (ceilings.read_gbps * 1e9));
}

}  // namespace flashmla::bench
