#include "cpu/isa/scalar.hpp"
#include "cpu/isa/vocabulary_of.hpp"

namespace flashmla::cpu::test {

constinit Vocabulary const kPortableVocabulary = VocabularyOf<Scalar>::table(FLASHMLA_ISA_PORTABLE, "portable");

}  // namespace flashmla::cpu::test
