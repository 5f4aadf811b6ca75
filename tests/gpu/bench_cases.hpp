// The rows of bench/bench_decode.py as data.
#pragma once

#include <cstdint>

namespace flashmla::test {

enum class Lens { kFixed, kNormal, kSkew };

struct BenchCase {
  char const* name;
  int32_t batch, q_tokens, h_q, kv_len;
  Lens lens = Lens::kFixed;
  bool causal = false;
};

inline constexpr BenchCase kBenchCases[] = {
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

}  // namespace flashmla::test
