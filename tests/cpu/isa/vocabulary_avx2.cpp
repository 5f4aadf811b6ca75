#include "cpu/isa/avx2.hpp"

#include "cpu/isa/vocabulary.hpp"
// the target region, from here to the end of the file
#include "cpu/isa/begin_avx2.hpp"

#include "cpu/isa/vocabulary_of.hpp"

namespace flashmla::cpu::test {

constinit Vocabulary const kAvx2Vocabulary = VocabularyOf<Avx2>::table(FLASHMLA_ISA_AVX2, "avx2");

}  // namespace flashmla::cpu::test
