#include "cpu/isa/neon.hpp"
#include "cpu/isa/vocabulary_of.hpp"

namespace flashmla::cpu::test {

constinit Vocabulary const kNeonVocabulary = VocabularyOf<Neon>::table(FLASHMLA_ISA_NEON, "neon");

}  // namespace flashmla::cpu::test
