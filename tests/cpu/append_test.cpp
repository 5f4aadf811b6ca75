// append against the reference: slots, skips, faults, pairs and page padding.
#include "reference/append.hpp"

#include "cpu/decode_fixture.hpp"

namespace flashmla::cpu::test {
namespace {

struct AppendData {
  explicit AppendData(int64_t tokens)
      : latent(static_cast<size_t>(tokens) * 520), rope(static_cast<size_t>(tokens) * 64), cache(kPages * kPageStride, 0x7fff) {
    for (size_t i = 0; i < latent.size(); ++i) latent[i] = static_cast<uint16_t>(i * 7);
    for (size_t i = 0; i < rope.size(); ++i) rope[i] = static_cast<uint16_t>(i * 13 + 1);
    call.format = core::find_kv_format(FLASHMLA_KV_FP16_576);
    call.tokens = tokens;
    call.ckv = latent.data();
    call.kpe = rope.data();
    call.ckv_token_stride = 520;
    call.kpe_token_stride = 64;
    call.cache = cache.data();
    call.num_pages = kPages;
    call.page_tokens = kPageTokens;
    call.page_stride = kPageStride;
    call.token_stride = 580;
  }
  static constexpr int64_t kPages = 40, kPageTokens = 16, kPageStride = kPageTokens * 580 + 24;
  std::vector<uint16_t> latent, rope, cache;
  core::AppendCall call;
};

TEST(Append, WritesGoodSlotsAndRecordsTheFirstBadOne) {
  constexpr int64_t kTokens = 300;  // more than one task
  AppendData got(kTokens), want(kTokens);
  std::vector<int64_t> slots(kTokens);
  for (int64_t i = 0; i < kTokens; ++i)
    slots[static_cast<size_t>(i)] = i % 9 == 4 ? -1 : (i * 2 + 1) % (AppendData::kPages * AppendData::kPageTokens);
  slots[77] = AppendData::kPages * AppendData::kPageTokens;
  slots[78] = -2;
  slots[200] = int64_t{1} << 40;
  flashmla_fault fault{};
  got.call.slot_mapping = want.call.slot_mapping = slots.data();
  got.call.fault = &fault;
  make_backend()->append(got.call, nullptr);
  std::vector<flashmla_fault> const faults = reference::append(want.call);
  EXPECT_EQ(got.cache, want.cache);
  ASSERT_EQ(faults.size(), 3u);
  EXPECT_EQ(std::memcmp(&fault, faults.data(), sizeof fault), 0);

  slots[77] = -1;  // an earlier record stays
  make_backend()->append(got.call, nullptr);
  EXPECT_EQ(fault.position, 77);
}

TEST(Append, SaturatesTheSlotAndNeedsNoRecord) {
  AppendData got(2);
  std::vector<int64_t> const slots = {int64_t{1} << 40, 3};
  flashmla_fault fault{};
  got.call.slot_mapping = slots.data();
  make_backend()->append(got.call, nullptr);
  got.call.fault = &fault;
  make_backend()->append(got.call, nullptr);
  EXPECT_EQ(fault.code, FLASHMLA_FAULT_SLOT);
  EXPECT_EQ(fault.position, 0);
  EXPECT_EQ(fault.value, std::numeric_limits<int32_t>::max());
  EXPECT_EQ(got.cache[3 * 580], got.latent[520]);
}

TEST(Append, NoTokensIsNoWork) {
  AppendData got(0);
  make_backend()->append(got.call, nullptr);
  EXPECT_TRUE(std::all_of(got.cache.begin(), got.cache.end(), [](uint16_t code) { return code == 0x7fff; }));
}

}  // namespace
}  // namespace flashmla::cpu::test
