// Every function of every instruction set against fp64 or against bit-exact definitions, over lengths and misalignments.
#include "cpu/isa/vocabulary.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "cpu/isa/detect.hpp"
#include "reference/scalar.hpp"

namespace flashmla::cpu::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class VocabularyTest : public testing::TestWithParam<Vocabulary const*> {
 protected:
  void SetUp() override {
    std::string const missing = missing_features(set().isa);
    if (!missing.empty()) GTEST_SKIP() << missing;
  }
  static Vocabulary const& set() { return *GetParam(); }

  std::vector<float> normal(size_t count, float deviation = 1) {
    std::normal_distribution<float> draw(0, deviation);
    std::vector<float> values(count);
    for (float& x : values) x = draw(rng_);
    return values;
  }
  std::vector<uint16_t> bf16(std::vector<float> const& values) {
    std::vector<uint16_t> codes;
    for (float const x : values) codes.push_back(reference::encode_float(reference::kBf16, x));
    return codes;
  }

  std::mt19937 rng_{7};
};

double value_of(uint16_t code) { return reference::decode_float(reference::kBf16, code); }

TEST_P(VocabularyTest, ArithmeticIsIeee) {
  std::vector<float> const a = normal(17), b = normal(17);
  float out[16];
  for (size_t at = 0; at < 2; ++at) {  // aligned or not
    set().mul(out, a.data() + at, b.data() + at);
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(out[i], a[at + i] * b[at + i]);
    set().add(out, a.data() + at, b.data() + at);
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(out[i], a[at + i] + b[at + i]);
    set().sub(out, a.data() + at, b.data() + at);
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(out[i], a[at + i] - b[at + i]);
    set().max(out, a.data() + at, b.data() + at);
    for (size_t i = 0; i < 16; ++i) EXPECT_EQ(out[i], std::max(a[at + i], b[at + i]));
  }
  set().set1(out, 3.25f);
  for (float const x : out) EXPECT_EQ(x, 3.25f);
}

TEST_P(VocabularyTest, Exp2IsAccurateAndExactlyZeroFarBelow) {
  for (float start = 0; start > -126; start -= 0.37f) {
    float x[16], out[16];
    for (int i = 0; i < 16; ++i) x[i] = start - 0.01f * static_cast<float>(i);
    set().exp2(out, x);
    for (int i = 0; i < 16; ++i) {
      if (x[i] <= -126) continue;
      EXPECT_NEAR(out[i] / std::exp2(static_cast<double>(x[i])), 1.0, 3e-7) << x[i];
    }
  }
  float const lowest = std::numeric_limits<float>::lowest();
  float const x[16] = {0, -kInfinity, lowest, -127, -128, -1000, -1e30f, -1, -2, -3, -4, -5, -6, -7, -8, -9};
  float out[16];
  set().exp2(out, x);
  EXPECT_EQ(out[0], 1.0f);  // else what was summed before drifts with every tile whose maximum stays
  for (int i = 1; i <= 6; ++i) EXPECT_EQ(out[i], 0.0f) << x[i];
}

TEST_P(VocabularyTest, MaskHidesTokensAtOrBeyondTheLimit) {
  std::vector<float> const x = normal(16);
  int32_t limit[16];
  for (int i = 0; i < 16; ++i) limit[i] = i - 3;
  for (int32_t token = 0; token < 14; ++token) {
    float out[16];
    set().mask_token(out, x.data(), limit, token);
    for (int i = 0; i < 16; ++i) EXPECT_EQ(out[i], token < limit[i] ? x[static_cast<size_t>(i)] : -kInfinity);
  }
}

TEST_P(VocabularyTest, WideningIsExactForEveryCode) {
  std::vector<uint16_t> codes(65536);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint16_t>(i);
  std::vector<float> out(codes.size());
  for (bool const is_bf16 : {true, false}) {
    (is_bf16 ? set().widen_bf16 : set().widen_fp16)(out.data(), codes.data(), static_cast<int>(codes.size()));
    for (size_t i = 0; i < codes.size(); ++i) {
      double const want = reference::decode_float(is_bf16 ? reference::kBf16 : reference::kFp16, codes[i]);
      if (std::isnan(want)) {
        EXPECT_TRUE(std::isnan(out[i])) << i;
      } else {
        EXPECT_EQ(static_cast<double>(out[i]), want) << i;
      }
    }
  }
}

TEST_P(VocabularyTest, NarrowingRoundsToNearestEven) {
  std::vector<float> values = normal(4000, 3.0f);
  for (float const scale : {1e-8f, 1e-6f, 1e-4f, 1e4f, 7e4f, 1e38f})
    for (float const x : normal(500)) values.push_back(x * scale);
  for (uint32_t code = 0; code < 65536; code += 7) {  // ties between neighbours
    double const low = reference::decode_float(reference::kFp16, static_cast<uint16_t>(code));
    double const high = reference::decode_float(reference::kFp16, static_cast<uint16_t>(code + 1));
    if (std::isfinite(low) && std::isfinite(high)) values.push_back(static_cast<float>((low + high) / 2));
    uint32_t const tie = code << 16 | 0x8000u;
    float value;
    std::memcpy(&value, &tie, sizeof value);
    if (std::isfinite(value)) values.push_back(value);
  }
  values.insert(values.end(), {0.0f, -0.0f, kInfinity, -kInfinity, 65504.0f, 65520.0f, 65519.9f});
  std::vector<uint16_t> out(values.size());
  for (bool const is_bf16 : {true, false}) {
    (is_bf16 ? set().narrow_bf16 : set().narrow_fp16)(out.data(), values.data(), static_cast<int>(values.size()));
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_EQ(out[i], reference::encode_float(is_bf16 ? reference::kBf16 : reference::kFp16, values[i])) << values[i];
  }
  float const nan = std::numeric_limits<float>::quiet_NaN();
  uint16_t code;
  set().narrow_bf16(&code, &nan, 1);
  EXPECT_TRUE(std::isnan(reference::decode_float(reference::kBf16, code)));
  set().narrow_fp16(&code, &nan, 1);
  EXPECT_TRUE(std::isnan(reference::decode_float(reference::kFp16, code)));
}

TEST_P(VocabularyTest, RowFunctionsTakeAnyLengthAndAlignmentAndTouchNothingElse) {
  for (int n = 0; n <= 70; ++n) {
    for (size_t at = 0; at < 4; ++at) {
      std::vector<float> const in = normal(80);
      std::vector<uint16_t> const codes = bf16(in);
      std::vector<float> out(80, 5.0f), wide(80, 5.0f);
      std::vector<uint16_t> narrow(80, 0x1234);
      set().accumulate(out.data() + at, in.data() + at, 0.5f, n);
      set().widen_bf16(wide.data() + at, codes.data() + at, n);
      set().narrow_bf16(narrow.data() + at, in.data() + at, n);
      for (size_t i = 0; i < 80; ++i) {
        bool const inside = i >= at && i < at + static_cast<size_t>(n);
        EXPECT_NEAR(out[i], inside ? 5.0f + 0.5f * in[i] : 5.0f, 1e-6f);
        EXPECT_EQ(wide[i], inside ? static_cast<float>(value_of(codes[i])) : 5.0f);
        EXPECT_EQ(narrow[i], inside ? codes[i] : 0x1234);
      }
    }
  }
}

TEST_P(VocabularyTest, TileProductForAnyDepthAndStrides) {
  for (int const num_k : {0, 1, 2, 15, 64, 192}) {
    for (bool const by_row : {true, false}) {  // b[n][k] or b[k][n]
      ptrdiff_t const n_stride = by_row ? num_k + 3 : 1, k_stride = by_row ? 1 : 19;
      std::vector<float> const a = normal(2 * static_cast<size_t>(num_k) * 16 + 16),
                               b = normal(static_cast<size_t>(16 * (num_k + 3) + 19 * num_k + 16));
      std::vector<float> const before = normal(512), alpha = normal(32);
      for (int const blocks : {1, 2}) {
        auto* const multiply = blocks == 1 ? set().tile_fma : set().tile_fma_pair;
        for (bool const scaled : {false, true}) {
          if (multiply == nullptr) continue;
          std::vector<float> c = before;
          multiply({c.data(), scaled ? alpha.data() : nullptr, a.data(), num_k, b.data(), n_stride, k_stride});
          for (ptrdiff_t i = 0; i < 512; ++i) {
            ptrdiff_t const block = i / 256, n = i / 16 % 16, row = i % 16;
            double want = scaled || block == blocks ? static_cast<double>(before[static_cast<size_t>(i)]) : 0.0;
            if (block < blocks) want *= alpha[static_cast<size_t>(block * 16 + row)];
            for (ptrdiff_t k = 0; k < num_k && block < blocks; ++k)
              want += static_cast<double>(a[static_cast<size_t>((block * num_k + k) * 16 + row)]) *
                      b[static_cast<size_t>(n * n_stride + k * k_stride)];
            EXPECT_NEAR(c[static_cast<size_t>(i)], want, 1e-4);
          }
        }
      }
    }
  }
}

TEST_P(VocabularyTest, WordsAreTurnedOver) {
  constexpr size_t kWords = 20;  // between rows of the result, the last four of which stay as they are
  std::vector<uint32_t> in(16 * 19 + 16), out(16 * kWords, 7);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<uint32_t>(i);
  uint32_t const* rows[16];
  for (size_t i = 0; i < 16; ++i) rows[i] = in.data() + (15 - i) * 19;
  set().transpose_words(out.data(), kWords, rows);
  for (size_t j = 0; j < 16; ++j)
    for (size_t i = 0; i < kWords; ++i) EXPECT_EQ(out[j * kWords + i], i < 16 ? rows[i][j] : 7) << j << " " << i;
}

TEST_P(VocabularyTest, DotProductsOfPairs) {
  if (set().dot_keys == nullptr) GTEST_SKIP() << set().name << " has no BF16 dot product";
  for (int const num_pairs : {1, 7, 32, 256}) {
    for (bool const keys : {true, false}) {
      ptrdiff_t const n_bytes = keys ? num_pairs * 4 + 6 : 4, p_bytes = keys ? 4 : 64;  // keys at odd 2-byte addresses too
      std::vector<uint16_t> const a = bf16(normal(static_cast<size_t>(num_pairs) * 32)),
                                  b = bf16(normal(static_cast<size_t>(16 * (num_pairs * 2 + 3) + num_pairs * 32)));
      std::vector<float> const before = normal(256), alpha = normal(16);
      std::vector<float> c = before;
      (keys ? set().dot_keys : set().dot_values)(
          {c.data(), alpha.data(), a.data(), num_pairs, reinterpret_cast<char const*>(b.data()), n_bytes, nullptr, nullptr});
      for (ptrdiff_t n = 0; n < 16; ++n) {
        for (ptrdiff_t row = 0; row < 16; ++row) {
          double want = static_cast<double>(before[static_cast<size_t>(n * 16 + row)]) * alpha[static_cast<size_t>(row)];
          for (ptrdiff_t p = 0; p < num_pairs; ++p)
            for (ptrdiff_t i = 0; i < 2; ++i)
              want += value_of(a[static_cast<size_t>((p * 16 + row) * 2 + i)]) *
                      value_of(b[static_cast<size_t>((n * n_bytes + p * p_bytes) / 2 + i)]);
          EXPECT_NEAR(c[static_cast<size_t>(n * 16 + row)], want, 2e-4);
        }
      }
    }
  }
}

TEST_P(VocabularyTest, RoundingMakesPairs) {
  if (set().store_pairs == nullptr) GTEST_SKIP() << set().name << " has no BF16 dot product";
  std::vector<float> const first = normal(16), second = normal(16);
  std::vector<uint16_t> const a = bf16(first), b = bf16(second);
  uint16_t rounded[32];
  set().store_pairs(rounded, first.data(), second.data());
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(rounded[2 * i], a[i]);
    EXPECT_EQ(rounded[2 * i + 1], b[i]);
  }
}

TEST_P(VocabularyTest, ColumnsPairUpOverTokensAloneOrWhileMultiplying) {
  if (set().interleave == nullptr) GTEST_SKIP() << set().name << " has no BF16 dot product";
  for (int const num_pairs : {2, 8, 32}) {
    size_t const pairs = static_cast<size_t>(num_pairs);
    std::vector<uint16_t> const values = bf16(normal(2 * pairs * 24)), a = bf16(normal(pairs * 32)), b = bf16(normal(pairs * 32));
    std::vector<char const*> tokens;
    for (size_t t = 0; t < 2 * pairs; ++t) tokens.push_back(reinterpret_cast<char const*>(values.data() + t * 24));
    std::vector<uint16_t> alone(pairs * 32), meanwhile(pairs * 32);
    float plain[256], with_next[256];
    set().interleave(alone.data(), tokens.data(), num_pairs);
    set().dot_values({plain, nullptr, a.data(), num_pairs, reinterpret_cast<char const*>(b.data()), 4, nullptr, nullptr});
    set().dot_values(
        {with_next, nullptr, a.data(), num_pairs, reinterpret_cast<char const*>(b.data()), 4, tokens.data(), meanwhile.data()});
    EXPECT_EQ(std::memcmp(plain, with_next, sizeof plain), 0);
    EXPECT_EQ(alone, meanwhile);
    for (size_t p = 0; p < pairs; ++p)
      for (size_t i = 0; i < 32; ++i) EXPECT_EQ(alone[p * 32 + i], values[(2 * p + i % 2) * 24 + 1 + i / 2]);
  }
}

TEST_P(VocabularyTest, LanesMultiplyAddAndSumUp) {
  size_t const lanes = static_cast<size_t>(set().num_lanes);
  std::vector<float> const a = normal(8 * lanes + 1), b = normal(lanes + 1), c = normal(lanes + 1);
  std::vector<float> out(lanes);
  set().mul_add_lanes(out.data(), a.data() + 1, b.data() + 1, c.data() + 1);
  for (size_t i = 0; i < lanes; ++i) EXPECT_NEAR(out[i], a[i + 1] * (a[i + 1] * b[i + 1] + c[i + 1]), 1e-5);
  float sums[8];
  set().sums_of_8(sums, a.data() + 1);
  for (size_t i = 0; i < 8; ++i) {
    double want = 0;
    for (size_t lane = 0; lane < lanes; ++lane) want += a[1 + i * lanes + lane];
    EXPECT_NEAR(sums[i], want, 1e-5);
  }
}

TEST_P(VocabularyTest, WhatIsSplitBetweenLanesJoinsInMemoryOrder) {
  size_t const count = 2 * static_cast<size_t>(set().num_lanes);
  std::vector<float> const x = normal(count + 1);
  for (bool const is_bf16 : {true, false}) {
    std::vector<uint16_t> codes;
    for (float const value : x) codes.push_back(reference::encode_float(is_bf16 ? reference::kBf16 : reference::kFp16, value));
    for (size_t at = 0; at < 2; ++at) {
      std::vector<float> out(count);
      set().split_and_join(out.data(), codes.data() + at, is_bf16);
      for (size_t i = at; i < count; ++i)
        EXPECT_EQ(out[i - at], reference::decode_float(is_bf16 ? reference::kBf16 : reference::kFp16, codes[i])) << i;
    }
  }
}

TEST_P(VocabularyTest, PairsAlongTheLanes) {
  if (set().dot_pairs == nullptr) GTEST_SKIP() << set().name << " has no BF16 dot product";
  size_t const lanes = static_cast<size_t>(set().num_lanes);
  std::vector<float> const acc = normal(lanes), x = normal(16);
  std::vector<uint16_t> const a = bf16(normal(2 * lanes + 1)), b = bf16(normal(2 * lanes + 1)), weights = bf16(normal(2));
  std::vector<float> out(2 * lanes);
  set().dot_pairs(out.data(), acc.data(), a.data() + 1, b.data() + 1);
  for (size_t i = 0; i < lanes; ++i)
    EXPECT_NEAR(out[i], acc[i] + value_of(a[2 * i + 1]) * value_of(b[2 * i + 1]) + value_of(a[2 * i + 2]) * value_of(b[2 * i + 2]), 1e-5);
  set().weigh_two(out.data(), weights.data(), a.data() + 1, b.data() + 1);
  for (size_t i = 0; i < 2 * lanes; ++i)
    EXPECT_NEAR(out[i], value_of(weights[0]) * value_of(a[i + 1]) + value_of(weights[1]) * value_of(b[i + 1]), 1e-5);
  uint16_t rounded[16];
  set().store_bf16(rounded, x.data());
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(rounded[i], bf16(x)[i]);
}

INSTANTIATE_TEST_SUITE_P(Isa, VocabularyTest,
                         testing::Values(&kPortableVocabulary, &kAvx2Vocabulary, &kAvx512fVocabulary, &kAvx512Bf16Vocabulary,
                                         &kNeonVocabulary, &kNeonBf16Vocabulary),
                         [](auto const& info) { return std::string(info.param->name); });

}  // namespace
}  // namespace flashmla::cpu::test
