#include "cpu/isa/amx.hpp"
#include "cpu/isa/tiles.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the code under test
#include "cpu/isa/begin_amx.hpp"
// clang-format on

namespace flashmla::cpu::test {

template <class Isa>
constexpr HardwareTiles hardware() {
  if constexpr (Isa::kHasTiles) return {&TilePrograms<typename Isa::TileUnit>::all_products, &TilePrograms<typename Isa::TileUnit>::clear};
  else return {nullptr, nullptr};
}
constinit HardwareTiles const kAmxTiles = hardware<AmxBf16>();

}  // namespace flashmla::cpu::test
