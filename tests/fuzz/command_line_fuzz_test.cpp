// Command lines that are nearly right: each is understood, or ends with exit code 2, a few lines on standard error and nothing on
// standard output. What info, kernels and plan then do is done as well; the other commands would read files and compute for long.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <sstream>

#include "fuzz/fuzz.hpp"
#include "tools/flashmla/command_line.hpp"
#include "tools/flashmla/errors.hpp"

namespace flashmla::tools {
namespace {

std::vector<std::string> const kCommands = {"info", "kernels", "plan", "plan", "plan", "check", "bench", "replay"};
std::vector<std::string> const kOptions = {"--kv",         "--q",          "--heads", "--q-tokens", "--page",        "--dtype",
                                           "--backend",    "--device",     "--isa",   "--threads",  "--workers",     "--json",
                                           "--tier",       "--filter",     "--batch", "--rounds",   "--demo",        "--pages",
                                           "--memory",     "--layers",     "--steps", "--seconds",  "--page-tokens", "--checks",
                                           "--no-sharing", "--time-scale", "--seed",  "--picture",  "--help",        "--version",
                                           "-h",           "--",           "-"};
std::vector<std::string> const kValues = {
    "1",           "0",   "2",   "7",    "16",   "128",      "129",  "-1",    "010",        "0x10",       "1e3",
    "1.5",         "nan", "inf", "1000", "70,1", "5,,6",     ",",    "",      " ",          "bf16",       "fp16",
    "fp8",         "cpu", "all", "auto", "cuda", "portable", "avx2", "smoke", "2147483647", "2147483648", "99999999999999999999",
    "trace.jsonl", "%s%n"};
std::vector<std::string_view> const kBytes = {"-", "--", "=", ",", "\"", "'", "\\", "\n", "%s", "\xff", "0", "9", "[", "]", "{", "}"};

/// Catches what goes to one stream while it lives.
class Capture {
 public:
  explicit Capture(std::ostream& stream) : stream_(stream), before_(stream.rdbuf(text_.rdbuf())) {}
  ~Capture() { stream_.rdbuf(before_); }
  Capture(Capture const&) = delete;
  Capture& operator=(Capture const&) = delete;
  [[nodiscard]] std::string text() const { return text_.str(); }

 private:
  std::ostringstream text_;
  std::ostream& stream_;
  std::streambuf* before_;
};

/// Hundreds of threads or millions of parts are legal, and no business of this test.
bool is_cheap(std::vector<std::string> const& words) {
  if (words.size() < 2 || (words[1] != "info" && words[1] != "kernels" && words[1] != "plan")) return false;
  bool after_kv = false;
  for (std::string const& word : words) {
    int digits = 0, most = 0;
    for (char const c : word) most = std::max(most, digits = c >= '0' && c <= '9' ? digits + 1 : 0);
    if (most > (after_kv || word.rfind("--kv", 0) == 0 ? 10 : 2) && word != "128" && word != "129") return false;
    after_kv = word == "--kv";
  }
  return true;
}

std::string judge(int code, std::string const& out, std::string const& err) {
  if (code != kExitOk && code != kExitUsage) return "exit code " + std::to_string(code) + ": " + err;
  if (code == kExitOk) return err.empty() ? "" : "a good command line complains: " + err;
  if (!out.empty()) return "a bad command line writes to standard output: " + out;
  auto const lines = std::count(err.begin(), err.end(), '\n');
  if (err.rfind("flashmla: ", 0) != 0 || lines < 1 || lines > 3) return "the complaint is " + err;
  return "";
}

std::string run_one(std::vector<std::string> const& words) {
  std::vector<char const*> argv;
  for (std::string const& word : words) argv.push_back(word.c_str());
  Capture const out(std::cout), err(std::cerr);
  try {
    Request const request = read_command_line(static_cast<int>(argv.size()), argv.data());
    int const code = !request.action ? request.code : is_cheap(words) ? perform(request.action) : kExitOk;
    return judge(code, out.text(), err.text());
  } catch (std::exception const& error) {
    return std::string("an exception gets out: ") + error.what();
  }
}

std::vector<std::string> random_words(fuzz::Random& random) {
  std::vector<std::string> words = {"flashmla", fuzz::any_of(random, kCommands)};
  if (words[1] == "plan" && random.below(4) > 0) words.insert(words.end(), {"--kv", "1000,70", "--threads", "2"});
  for (int64_t count = random.below(5); count > 0; --count) {
    words.push_back(fuzz::any_of(random, kOptions));
    if (random.below(4) > 0) words.push_back(fuzz::any_of(random, kValues));
  }
  if (random.below(2) == 0) {
    std::string& word = words[static_cast<size_t>(1 + random.below(static_cast<int64_t>(words.size()) - 1))];
    word = fuzz::mutated(random, word, kBytes);
    std::erase(word, '\0');  // no argument of a program holds one
  }
  return words;
}

TEST(CommandLineFuzz, EveryOneIsUnderstoodOrRefused) {
  fuzz::run_rounds(1000, [](fuzz::Random& random) {
    auto const words = random_words(random);
    std::string text;
    for (std::string const& word : words) text += "'" + word + "' ";
    fuzz::describe_round(text);
    return run_one(words);
  });
}

}  // namespace
}  // namespace flashmla::tools
