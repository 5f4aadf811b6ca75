#include "cpu/isa/avx512_bf16.hpp"

#include "cpu/isa/vocabulary.hpp"
// the target region, from here to the end of the file
#include "cpu/isa/begin_avx512_bf16.hpp"

#include "cpu/isa/vocabulary_of.hpp"

namespace flashmla::cpu::test {

constinit Vocabulary const kAvx512Bf16Vocabulary = VocabularyOf<Avx512Bf16>::table(FLASHMLA_ISA_AVX512_BF16, "avx512_bf16");

}  // namespace flashmla::cpu::test
