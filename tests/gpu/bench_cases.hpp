// What gpu_bench times, as data: the rows of bench/bench_decode.py, and rows that differ from one of a set in one thing.
#pragma once

#include <cstdint>

namespace flashmla::test {

enum class Lens { kFixed, kNormal, kSkew };

struct BenchCase {
  char const* name;
  int32_t batch, q_tokens, h_q, kv_len;
  Lens lens = Lens::kFixed;
  bool causal = false;
  int32_t page_tokens = 64, h_kv = 1;
  char const* baseline = nullptr;  // the row of the set whose rate this one's is compared with
  double bar = 0;                  // the share of it that is asked for; 0: none
};

inline constexpr BenchCase kMainCases[] = {
    {"h128 b128 4k", 128, 1, 128, 4096},
    {"h128 b128 8k", 128, 1, 128, 8192},
    {"h128 b128 32k", 128, 1, 128, 32768},
    {"h128 b128 8k varlen", 128, 1, 128, 8192, Lens::kNormal},
    {"h128 b128 8k mtp2 causal", 128, 2, 128, 8192, Lens::kNormal, true},
    {"h128 b64 skew 1x128k+2k", 64, 1, 128, 2048, Lens::kSkew},
    {"h96 b128 8k", 128, 1, 96, 8192},
    {"h64 b128 8k", 128, 1, 64, 8192},
    {"h32 b128 8k", 128, 1, 32, 8192},
    {"h16 b128 8k", 128, 1, 16, 8192},
    {"h16 b128 8k varlen", 128, 1, 16, 8192, Lens::kNormal},
    {"h16 b128 8k mtp2", 128, 2, 16, 8192, Lens::kFixed, true},
    {"h16 b128 1k", 128, 1, 16, 1024},
    {"h16 b16 1k s_q16 causal", 16, 16, 16, 1024, Lens::kFixed, true},
    {"h16 b64 512 s_q2", 64, 2, 16, 512, Lens::kFixed, true},
    {"h16 b132 4k s_q4", 132, 4, 16, 4096, Lens::kFixed, true},
    {"h128 b1 1k", 1, 1, 128, 1024},
    {"h128 b1 8k", 1, 1, 128, 8192},
    {"h128 b1 64k", 1, 1, 128, 65536},
    {"h16 b1 1k", 1, 1, 16, 1024},
    {"h16 b1 8k", 1, 1, 16, 8192},
    {"h16 b1 128k", 1, 1, 16, 131072},
    {"h128 b8 4k", 8, 1, 128, 4096},
    {"h16 b16 4k", 16, 1, 16, 4096},
    {"h128 b32 2k", 32, 1, 128, 2048},
};

/// Pages of 64 tokens, then the others at the same size. The rate asked of pages of 1 and of 16 and more is that of
/// h16 b128 8k.
constexpr BenchCase page_case(char const* name, int32_t h_q, int32_t page_tokens, char const* baseline) {
  BenchCase c{name, 128, 1, h_q, 8192};
  c.page_tokens = page_tokens;
  c.baseline = baseline;
  c.bar = h_q != 16 || baseline == nullptr ? 0 : page_tokens >= 16 ? 0.95 : page_tokens == 1 ? 0.80 : 0;
  return c;
}

inline constexpr char kPages16[] = "h16 b128 8k page 64", kPages128[] = "h128 b128 8k page 64";
inline constexpr BenchCase kPageCases[] = {
    page_case(kPages16, 16, 64, nullptr),
    page_case("h16 b128 8k page 1", 16, 1, kPages16),
    page_case("h16 b128 8k page 2", 16, 2, kPages16),
    page_case("h16 b128 8k page 16", 16, 16, kPages16),
    page_case("h16 b128 8k page 32", 16, 32, kPages16),
    page_case("h16 b128 8k page 128", 16, 128, kPages16),
    page_case("h16 b128 8k page 256", 16, 256, kPages16),
    page_case(kPages128, 128, 64, nullptr),
    page_case("h128 b128 8k page 1", 128, 1, kPages128),
    page_case("h128 b128 8k page 2", 128, 2, kPages128),
    page_case("h128 b128 8k page 16", 128, 16, kPages128),
    page_case("h128 b128 8k page 32", 128, 32, kPages128),
    page_case("h128 b128 8k page 128", 128, 128, kPages128),
    page_case("h128 b128 8k page 256", 128, 256, kPages128),
};

/// Query heads that no tile divides, and several KV heads. A row of h_kv heads reads as many bytes as h_kv times its batch.
constexpr BenchCase kv_head_case(char const* name, int32_t h_q, int32_t h_kv, int32_t batch) {
  BenchCase c{name, batch, 1, h_q, 8192};
  c.h_kv = h_kv;
  return c;
}

inline constexpr BenchCase kHeadCases[] = {
    {"h8 b128 8k", 128, 1, 8, 8192},         {"h20 b128 8k", 128, 1, 20, 8192},         {"h40 b128 8k", 128, 1, 40, 8192},
    {"h48 b128 8k", 128, 1, 48, 8192},       {"h80 b128 8k", 128, 1, 80, 8192},         {"h112 b128 8k", 128, 1, 112, 8192},
    kv_head_case("h16/2 b64 8k", 16, 2, 64), kv_head_case("h128/2 b64 8k", 128, 2, 64), kv_head_case("h126/3 b42 8k", 126, 3, 42),
    kv_head_case("h16/8 b16 8k", 16, 8, 16), kv_head_case("h128/8 b16 8k", 128, 8, 16),
};

/// copy_pages of so many pages of 64 tokens in every layer of a model.
struct CopyCase {
  char const* name;
  int32_t layers, copies;
};

inline constexpr CopyCase kCopyCases[] = {
    {"copy 1 page x 61", 61, 1},
    {"copy 16 pages x 61", 61, 16},
    {"copy 128 pages x 61", 61, 128},
    {"copy 512 pages x 61", 61, 512},
};

}  // namespace flashmla::test
