// Fuzzing without a fuzzing engine: rounds of random inputs, each of which follows from a seed and its number alone.
//
// GCC has no libFuzzer, and coverage matters less than the oracles here: inputs are legal ones with a few changes, so that most
// checks are passed and one fails. Under AddressSanitizer and UndefinedBehaviorSanitizer a defect ends the program; the round is
// then printed, so that FLASHMLA_FUZZ_SEED and FLASHMLA_FUZZ_ROUND run it again alone.
//
//   FLASHMLA_FUZZ_SEED=S      other inputs (default 1)
//   FLASHMLA_FUZZ_SECONDS=T   as many rounds as fit, instead of a fixed number
//   FLASHMLA_FUZZ_ROUND=N     round N alone
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/random.hpp"

namespace flashmla::fuzz {

using conformance::Random;

/// Runs one round; text that says what is wrong, or nothing.
using Round = std::function<std::string(Random&)>;

/// Runs rounds and fails the current test at the first that is wrong. `num_rounds`: unless FLASHMLA_FUZZ_SECONDS says otherwise.
void run_rounds(int64_t num_rounds, Round const& round);

/// What the current round is about, for the report of a round that ends the program. Keep it cheap.
void describe_round(std::string text);

template <typename T, size_t N>
T const& any_of(Random& random, T const (&values)[N]) {
  return values[random.below(static_cast<int64_t>(N))];
}
template <typename T>
T const& any_of(Random& random, std::vector<T> const& values) {
  return values[static_cast<size_t>(random.below(static_cast<int64_t>(values.size())))];
}

/// `text` with bytes changed, put in, left out, repeated, and words of `dictionary` put in.
std::string mutated(Random& random, std::string text, std::vector<std::string_view> const& dictionary);

}  // namespace flashmla::fuzz
