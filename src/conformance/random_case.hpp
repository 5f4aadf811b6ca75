// Cases of dense decode drawn at random: small calls in which every option and layout meets every other.
#pragma once

#include "conformance/decode_case.hpp"

namespace flashmla::conformance {

/// The case of a seed, named `random.SEED`: of a format that a GPU serves, any legal problem that upstream or an engine could make, at most a
/// few thousand rows and a cache of some 20 MB, with a schedule for other lengths in one of five.
DecodeCase random_case(uint64_t seed);

/// What a person needs to know of a case, in one line.
std::string text_of(DecodeCase const& c);

}  // namespace flashmla::conformance
