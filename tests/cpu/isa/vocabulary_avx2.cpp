#include "cpu/isa/avx2.hpp"
#include "cpu/isa/vocabulary.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the code under test
#include "cpu/isa/begin_avx2.hpp"
#include "cpu/isa/vocabulary_of.hpp"
// clang-format on

namespace flashmla::cpu::test {

constinit Vocabulary const kAvx2Vocabulary = VocabularyOf<Avx2>::table(FLASHMLA_ISA_AVX2, "avx2");

}  // namespace flashmla::cpu::test
