#include "cpu/isa/neon_bf16.hpp"
#include "cpu/isa/vocabulary.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the code under test
#include "cpu/isa/begin_neon_bf16.hpp"
#include "cpu/isa/vocabulary_of.hpp"
// clang-format on

namespace flashmla::cpu::test {

constinit Vocabulary const kNeonBf16Vocabulary = VocabularyOf<NeonBf16>::table(FLASHMLA_ISA_NEON_BF16, "neon_bf16");

}  // namespace flashmla::cpu::test
