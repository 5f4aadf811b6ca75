// Cache formats as data: what a token costs and where its numbers lie. Shared by validation, backends and reference.
#pragma once

#include <flashmla/flashmla.h>

#include <cstdint>

namespace flashmla::core {

struct KvFormat {
  flashmla_kv_format id;
  char const* name;         // as in the C header, without the prefix
  int32_t qk_dim;           // numbers in a key
  int32_t v_dim;            // the first v_dim of them are the value
  int32_t latent;           // leading part of a fused token
  int32_t rope;             // trailing part
  int32_t bytes_per_token;  // without page padding
  flashmla_dtype dtype;     // element of a plain format; UINT8 for packed ones
  bool built;               // false: known by name, not built yet
};

inline constexpr KvFormat kKvFormats[] = {
    {FLASHMLA_KV_BF16_576, "BF16_576", 576, 512, 512, 64, 1152, FLASHMLA_BF16, true},
    {FLASHMLA_KV_FP16_576, "FP16_576", 576, 512, 512, 64, 1152, FLASHMLA_FP16, true},
    {FLASHMLA_KV_FP8_576_TENSOR, "FP8_576_TENSOR", 576, 512, 512, 64, 576, FLASHMLA_E4M3, false},
    {FLASHMLA_KV_FP8_V32_656, "FP8_V32_656", 576, 512, 512, 64, 656, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP8_V4_584, "FP8_V4_584", 512, 512, 448, 64, 584, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP8_V41_528_PLANAR, "FP8_V41_528_PLANAR", 512, 512, 512, 0, 528, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP8_V41_528_INTERLEAVED, "FP8_V41_528_INTERLEAVED", 512, 512, 512, 0, 528, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP8_NOPE_528, "FP8_NOPE_528", 512, 512, 512, 0, 528, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP4_V41_288_PLANAR, "FP4_V41_288_PLANAR", 512, 512, 512, 0, 288, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_FP4_V41_288_INTERLEAVED, "FP4_V41_288_INTERLEAVED", 512, 512, 512, 0, 288, FLASHMLA_UINT8, false},
    {FLASHMLA_KV_BF16_512, "BF16_512", 512, 512, 512, 0, 1024, FLASHMLA_BF16, false},
    {FLASHMLA_KV_BF16_320, "BF16_320", 320, 256, 256, 64, 640, FLASHMLA_BF16, true},
    {FLASHMLA_KV_BF16_288, "BF16_288", 288, 256, 256, 32, 576, FLASHMLA_BF16, true},
    {FLASHMLA_KV_FP32_576, "FP32_576", 576, 512, 512, 64, 2304, FLASHMLA_FP32, true},
};

/// Whether a GPU can attend to caches of this format and append to them.
constexpr bool is_served_on_gpu(KvFormat const& format) {
  return format.id == FLASHMLA_KV_BF16_576 || format.id == FLASHMLA_KV_FP16_576 || format.id == FLASHMLA_KV_BF16_320 ||
         format.id == FLASHMLA_KV_BF16_288;
}

/// The row of `id`, or null for a value that is no format.
constexpr KvFormat const* find_kv_format(int32_t id) {
  for (KvFormat const& f : kKvFormats)
    if (f.id == id) return &f;
  return nullptr;
}

}  // namespace flashmla::core
