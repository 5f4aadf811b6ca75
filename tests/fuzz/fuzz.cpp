#include "fuzz/fuzz.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>

/// Of the sanitizers, where the program is linked with one.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());

namespace flashmla::fuzz {
namespace {

uint64_t current_seed = 1;
int64_t current_round = 0;
std::string current_text;

std::string where() {
  auto const* const test = testing::UnitTest::GetInstance()->current_test_info();
  return std::string(test == nullptr ? "?" : test->name()) + ": FLASHMLA_FUZZ_SEED=" + std::to_string(current_seed) +
         " FLASHMLA_FUZZ_ROUND=" + std::to_string(current_round) + "\n" + current_text + "\n";
}

void print_where() { std::fputs(where().c_str(), stderr); }

std::optional<double> number_of(char const* variable) {
  char const* const text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? std::nullopt : std::optional<double>(std::strtod(text, nullptr));
}

/// Rounds are independent: neighbours have unlike states.
Random random_of(int64_t round) { return Random(Random(current_seed * 0x100000001b3ull + static_cast<uint64_t>(round)).next()); }

}  // namespace

void describe_round(std::string text) { current_text = std::move(text); }

void run_rounds(int64_t num_rounds, Round const& round) {
  using Clock = std::chrono::steady_clock;
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(print_where);
  current_seed = static_cast<uint64_t>(number_of("FLASHMLA_FUZZ_SEED").value_or(1));
  auto const seconds = number_of("FLASHMLA_FUZZ_SECONDS"), only = number_of("FLASHMLA_FUZZ_ROUND");
  auto const begin = Clock::now();
  int64_t done = 0;
  for (current_round = static_cast<int64_t>(only.value_or(0));; ++current_round, ++done) {
    if (only ? done == 1 : seconds ? Clock::now() - begin > std::chrono::duration<double>(*seconds) : done == num_rounds) break;
    Random random = random_of(current_round);
    current_text.clear();
    std::string const wrong = round(random);
    ASSERT_EQ(wrong, "") << where();
  }
  std::printf("seed %llu, %lld rounds\n", static_cast<unsigned long long>(current_seed), static_cast<long long>(done));
}

std::string mutated(Random& random, std::string text, std::vector<std::string_view> const& dictionary) {
  for (int64_t changes = 1 + random.below(4); changes > 0; --changes) {
    auto const at = static_cast<size_t>(random.below(static_cast<int64_t>(text.size()) + 1));
    auto const length = static_cast<size_t>(1 + random.below(8));
    switch (random.below(6)) {
      case 0:
        if (at < text.size()) text[at] = static_cast<char>(random.below(256));
        break;
      case 1:
        text.insert(at, 1, static_cast<char>(random.below(256)));
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << random.below(8)));
        break;
      default:
        text.insert(at, any_of(random, dictionary));
    }
  }
  return text;
}

}  // namespace flashmla::fuzz
