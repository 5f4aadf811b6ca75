// The public merge against the reference.
#include "reference/merge.hpp"

#include "cpu/decode_fixture.hpp"

namespace flashmla::cpu::test {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct MergeData {
  core::MergeCall call;
  std::vector<uint8_t> partial, out, want;
  std::vector<float> partial_lse, sink, lse, want_lse;
};

MergeData make(flashmla_dtype partial, flashmla_dtype out, int64_t num_parts, int64_t v_dim) {
  constexpr int64_t kTokens = 7, kHeads = 5;
  int64_t const width = v_dim + 8;
  std::mt19937 rng(3);
  std::normal_distribution<float> draw(0, 1);
  MergeData m;
  m.partial.assign(static_cast<size_t>(num_parts * kTokens * kHeads * width * 4), 0xff);
  for (int64_t row = 0; row < num_parts * kTokens * kHeads; ++row) {
    m.partial_lse.push_back(row % 11 == 3 ? kInfinity : row % 7 == 2 ? -kInfinity : 4 * draw(rng));
    if (row / kHeads % kTokens == 2) m.partial_lse.back() = -kInfinity;  // token 2: every part is empty
    if (std::isinf(m.partial_lse.back())) continue;                      // its row stays NaN
    for (int64_t d = 0; d < v_dim; ++d) reference::store(partial, m.partial.data(), row * width + d, draw(rng));
  }
  m.sink = {0.5f, kInfinity, -kInfinity, -2.0f, 3.0f};
  m.out.assign(static_cast<size_t>(kTokens * kHeads * width * 4), 0xff);
  m.want = m.out;
  m.lse.assign(kTokens * kHeads, 99.0f);
  m.want_lse = m.lse;
  core::MergeCall& c = m.call;
  c.num_parts = num_parts;
  c.tokens = kTokens;
  c.heads = kHeads;
  c.v_dim = v_dim;
  c.partial_dtype = partial;
  c.out_dtype = out;
  for (int i = 0; i < 3; ++i) {
    int64_t const rows = i == 0 ? kTokens * kHeads : i == 1 ? kHeads : 1;
    c.partial_out_stride[i] = rows * width;
    c.partial_lse_stride[i] = rows;
    if (i > 0) c.out_stride[i - 1] = rows * width;
    if (i > 0) c.lse_stride[i - 1] = i == 1 ? 1 : kTokens;  // transposed
  }
  return m;
}

void expect_merged(MergeData& m) {
  core::MergeCall& c = m.call;
  c.partial_out = m.partial.data();
  c.partial_lse = m.partial_lse.data();
  core::MergeCall want = c;
  c.out = m.out.data();
  c.lse = c.lse_stride[0] == 0 ? nullptr : m.lse.data();
  want.out = m.want.data();
  want.lse = m.want_lse.data();
  make_backend()->merge(c, nullptr);
  reference::merge(want);
  double const bound = c.out_dtype == FLASHMLA_BF16   ? 8e-3
                       : c.out_dtype == FLASHMLA_FP16 ? 1e-3
                                                      : 4e-6;  // FP32: 200 parts are summed in FP32
  for (int64_t row = 0; row < c.tokens * c.heads; ++row) {
    for (int64_t d = 0; d < c.v_dim; ++d) {
      int64_t const at = row / c.heads * c.out_stride[0] + row % c.heads * c.out_stride[1] + d;
      double const got = reference::load(c.out_dtype, m.out.data(), at), expected = reference::load(c.out_dtype, m.want.data(), at);
      ASSERT_NEAR(got, expected, bound * std::max(1.0, std::abs(expected))) << "row " << row << " column " << d;
    }
  }
  for (size_t i = 0; i < m.lse.size(); ++i) {
    if (std::isinf(m.want_lse[i])) {
      EXPECT_EQ(m.lse[i], m.want_lse[i]);
    } else {
      EXPECT_NEAR(m.lse[i], m.want_lse[i], 2e-6);
    }
  }
}

TEST(Merge, AllDtypesBasesAndSinks) {
  for (flashmla_dtype const partial : {FLASHMLA_BF16, FLASHMLA_FP16, FLASHMLA_FP32}) {
    for (flashmla_dtype const out : {FLASHMLA_BF16, FLASHMLA_FP16, FLASHMLA_FP32}) {
      for (bool const option : {false, true}) {
        MergeData m = make(partial, out, 6, 512);
        m.call.sink = option ? m.sink.data() : nullptr;
        m.call.lse_base = option ? FLASHMLA_LSE_BASE_2 : FLASHMLA_LSE_NATURAL;
        m.call.empty_row = option ? FLASHMLA_EMPTY_LSE_MINUS_INF : FLASHMLA_EMPTY_LSE_PLUS_INF;
        expect_merged(m);
      }
    }
  }
}

TEST(Merge, AnyWidthAndNumberOfParts) {
  for (int64_t const v_dim : {1, 7, 64, 513, 1200}) {
    for (int64_t const num_parts : {0, 1, 2, 200}) {
      MergeData m = make(FLASHMLA_FP32, FLASHMLA_FP32, num_parts, v_dim);
      expect_merged(m);
    }
  }
}

}  // namespace
}  // namespace flashmla::cpu::test
