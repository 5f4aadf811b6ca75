#include "cpu/isa/avx512_bf16.hpp"
#include "cpu/isa/vocabulary.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the code under test
#include "cpu/isa/begin_avx512_bf16.hpp"
#include "cpu/isa/vocabulary_of.hpp"
// clang-format on

namespace flashmla::cpu::test {

constinit Vocabulary const kAvx512Bf16Vocabulary = VocabularyOf<Avx512Bf16>::table(FLASHMLA_ISA_AVX512_BF16, "avx512_bf16");

}  // namespace flashmla::cpu::test
