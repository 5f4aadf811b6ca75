#include "cpu/isa/avx512f.hpp"
#include "cpu/isa/vocabulary.hpp"

// clang-format off: the target region opens between the headers that stay outside it and the code under test
#include "cpu/isa/begin_avx512f.hpp"
#include "cpu/isa/vocabulary_of.hpp"
// clang-format on

namespace flashmla::cpu::test {

constinit Vocabulary const kAvx512fVocabulary = VocabularyOf<Avx512f>::table(FLASHMLA_ISA_AVX512F, "avx512f");

}  // namespace flashmla::cpu::test
