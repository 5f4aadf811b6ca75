// A program, not a test: times both kernels of every instruction set that this machine has, over the number of rows, on
// one thread and caches colder than the last level. The bounds in the tables (kNarrowRows*) come from its output.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/cpu_ceilings.hpp"
#include "core/names.hpp"
#include "cpu/isa_table.hpp"

namespace flashmla::cpu {
namespace {

constexpr int32_t kTokens = 4096, kPageTokens = 64, kLatent = 512, kRope = 64, kQkDim = kLatent + kRope, kMaxRows = 16;
constexpr size_t kCaches = 56;  // 56 * 4.5 MiB: beyond any last-level cache that one thread sees
constexpr size_t kCacheNumbers = size_t{kTokens} * kQkDim;

/// Everything a PartTask points to.
class Setup {
 public:
  explicit Setup(Storage storage)
      : words_(static_cast<size_t>(number_bytes(storage) / 2)),
        cache_(kCaches * kCacheNumbers * words_),
        q_(size_t{kMaxRows} * kQkDim * words_),
        table_(kCaches * (kTokens / kPageTokens)) {
    std::mt19937 rng(5);
    bool const is_upper = storage != Storage::kFp16;  // a BF16 number is the upper word of a float
    size_t const cache_words = kCacheNumbers * words_;
    for (uint16_t& x : q_) x = number(rng, is_upper);  // lower words may hold anything
    for (size_t i = 0; i < cache_words; ++i) cache_[i] = number(rng, is_upper);
    for (size_t c = 1; c < kCaches; ++c) std::copy_n(cache_.begin(), cache_words, cache_.begin() + static_cast<ptrdiff_t>(c * cache_words));
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), rng);
    task_.latent = kLatent;
    task_.rope = kRope;
    task_.v_dim = kLatent;
    task_.last_token = kTokens;
    task_.scale_log2 = 0.06f;
    task_.q_storage = storage;
    task_.q_nope = nope_;
    task_.q_pe = pe_;
    task_.limit = limit_;
    task_.fault = &fault_;
    char const* const base = reinterpret_cast<char const*>(cache_.data());
    int64_t const token_bytes = kQkDim * number_bytes(storage);
    task_.keys = {base,
                  base + kLatent * number_bytes(storage),
                  token_bytes * kPageTokens,
                  token_bytes,
                  token_bytes * kPageTokens,
                  token_bytes,
                  nullptr,
                  kPageTokens,
                  kPageTokens,
                  storage};
    task_.keys.num_pages = static_cast<int64_t>(table_.size());
    task_.scratch = {take<float>(kMaxRows * kLatent),
                     take<char>(kMaxRows * kQkDim * 4),
                     take<float>(kMaxRows * kMaxStepTokens),
                     take<uint16_t>(kMaxRows * kMaxStepTokens),
                     take<char>(kTileTokens * kPanelStride * 4),
                     take<uint16_t>(kTileTokens * kQkDim),
                     take<float>(kMaxRows),
                     take<float>(kMaxRows),
                     take<float>(kMaxRows)};
  }

  double seconds(DecodeKernel const& kernel, int rows) {
    task_.num_rows = rows;
    task_.num_blocks = 1;
    for (int r = 0; r < kMaxRows; ++r) {
      nope_[r] = q_.data() + static_cast<size_t>(r * kQkDim) * words_;
      pe_[r] = q_.data() + static_cast<size_t>(r * kQkDim + kLatent) * words_;
      limit_[r] = r < rows ? kTokens : 0;
    }
    task_.keys.page_table = table_.data() + next_++ % kCaches * (kTokens / kPageTokens);
    auto const begin = std::chrono::steady_clock::now();
    kernel.run(task_);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

 private:
  static uint16_t number(std::mt19937& rng, bool is_bf16) {  // about [0.5, 2) of either sign
    uint32_t const bits = rng();
    return static_cast<uint16_t>((is_bf16 ? 0x3f00u : 0x3800u) + (bits & (is_bf16 ? 0xffu : 0x7ffu)) + (bits >> 16 & 0x8000u));
  }
  template <class T>
  T* take(int count) {
    void* const memory = std::aligned_alloc(4096, (static_cast<size_t>(count) * sizeof(T) + 4095) / 4096 * 4096);
    return static_cast<T*>(memory);  // for the whole run of the program
  }

  size_t words_;  // of 16 bits in a number
  std::vector<uint16_t> cache_, q_;
  std::vector<int32_t> table_;
  void const *nope_[kMaxRows], *pe_[kMaxRows];
  int32_t limit_[kMaxRows] = {};
  PageFault fault_{};
  PartTask task_{};
  size_t next_ = 0;
};

bool is_usable(flashmla_isa isa) {
  for (core::KernelRow const& row : kernel_rows())
    if (row.isa == isa) return row.usable;
  return false;
}

void time_row(IsaRow const& row, Storage storage, Setup& setup, int most_rows) {
  struct Best {
    double narrow = 1e9, wide = 1e9;
  };
  bool const is_bf16 = storage == Storage::kBf16;
  DecodeKernel const& wide = is_bf16 ? row.kernels->wide_bf16 : row.kernels->wide_fp32;
  std::vector<Best> best(static_cast<size_t>(most_rows));
  bench::CpuProbe const probe(row.isa, 1);
  bench::CpuCeilings ceilings = probe.measure();
  for (int round = 0; round < 8; ++round) {  // interleaved: what disturbs the machine hits all alike
    for (int rows = 1; rows <= most_rows; ++rows) {
      Best& b = best[static_cast<size_t>(rows - 1)];
      b.narrow = std::min(b.narrow, setup.seconds(row.kernels->narrow, rows));
      b.wide = std::min(b.wide, setup.seconds(wide, rows));
    }
    if (round % 4 == 3) ceilings = bench::best_of(ceilings, probe.measure());
  }
  std::printf("%s, %s: %.1f GB/s, %.0f GFLOP/s\n", core::isa_name(row.isa),
              is_bf16                     ? "bf16"
              : storage == Storage::kFp16 ? "fp16"
                                          : "fp32",
              ceilings.read_gbps, is_bf16 ? ceilings.gflops : ceilings.fp32_gflops);
  for (int rows = 1; rows <= most_rows; ++rows) {
    Best const& b = best[static_cast<size_t>(rows - 1)];
    double const floor =
        bench::decode_floor_seconds(ceilings, is_bf16 ? FLASHMLA_BF16 : FLASHMLA_FP16, 2.0 * (kQkDim + kLatent) * kTokens * rows,
                                    static_cast<double>(kCacheNumbers) * number_bytes(storage));
    std::printf(
        "  %2d rows: narrow %.3f ms (%.0f %% of floor), wide %.3f ms%s\n", rows, b.narrow * 1e3, 100 * floor / b.narrow, b.wide * 1e3,
        (b.narrow <= b.wide) == (row.kernels->decode_for(rows, storage).run == row.kernels->narrow.run) ? ""
                                                                                                        : "  <- the table says otherwise");
  }
  std::fflush(stdout);
}

}  // namespace
}  // namespace flashmla::cpu

int main(int argc, char** argv) {
  using namespace flashmla::cpu;
  int const most_rows = argc > 1 ? std::clamp(std::atoi(argv[1]), 1, kMaxRows) : kMaxRows;
  std::string const only = argc > 2 ? argv[2] : "";
  for (Storage const storage : {Storage::kBf16, Storage::kFp16, Storage::kFp32}) {
    Setup setup(storage);
    for (IsaRow const& row : isa_table())
      if (is_usable(row.isa) && (only.empty() || only == flashmla::core::isa_name(row.isa))) time_row(row, storage, setup, most_rows);
  }
}
