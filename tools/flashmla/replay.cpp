// flashmla replay: decode a real trace as a serving engine does, and say how well.
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "tools/flashmla/command.hpp"
#include "tools/flashmla/errors.hpp"
#include "tools/flashmla/progress.hpp"
#include "tools/flashmla/replay_report.hpp"
#include "tools/flashmla/replay_run.hpp"
#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

struct ReplayCommand {
  ReplayOptions options;
  std::string picture;
  bool json = false;
};

/// One bar for each phase that run_replay names.
class PhaseBars {
 public:
  void operator()(std::string const& what, double fraction, std::string const& note) {
    if (!bar_ || what != what_) {
      bar_.emplace(what);
      what_ = what;
    }
    bar_->update(fraction, note);
  }

 private:
  std::string what_;
  std::optional<Progress> bar_;
};

/// Opened before anything is measured: a path that cannot be written is an argument's fault.
std::ofstream open_picture(std::string const& path) {
  std::ofstream file;
  if (path.empty()) return file;
  file.open(path, std::ios::app);  // what is there stays there until there is something better
  if (!file) throw UsageError("replay: --picture: got '" + path + "', expected a file that can be written");
  return file;
}

int run(ReplayCommand const& command) {
  open_picture(command.picture);
  ReplayResult result;
  {
    PhaseBars bars;
    result =
        run_replay(command.options, [&](std::string const& what, double fraction, std::string const& note) { bars(what, fraction, note); });
  }
  if (!command.picture.empty()) std::ofstream(command.picture) << replay_picture(result);
  if (command.json) {
    std::cout << replay_json(result).dump(2) << "\n";
  } else {
    std::cout << replay_text(result);
    if (!command.picture.empty()) std::cout << "picture  " << command.picture << "\n";
  }
  return result.checks_passed() ? kExitOk : kExitFailure;
}

void add_size_options(CLI::App& command, ReplayOptions& options) {
  auto const positive = whole_number(1, 2147483647);
  command.add_flag("--demo", options.demo, "sizes for a show of about a minute on this machine; other options still hold");
  auto* const pages = command.add_option("--pages", options.pages, "pages of each layer's cache")->check(positive);
  command.add_option("--memory", options.memory_gib, "GiB for the caches of all layers, instead of --pages")
      ->check(positive)
      ->excludes(pages);
  command.add_option("--max-batch", options.max_batch, "requests at once, at most")->check(positive);
  command.add_option("--layers", options.layers, "layers; DeepSeek-V3 has 61")->check(whole_number(1, 1024));
  command.add_option("--heads", options.heads, "query heads, 1 to 128; DeepSeek-V3 has 128, one of 8 tensor-parallel ranks 16")
      ->check(positive);
  command.add_option("--steps", options.steps, "stop after so many steps")->check(positive);
  command.add_option("--seconds", options.seconds, "stop after so long")->check(number_from(0));
  command.add_option("--page-tokens,--page", options.page_tokens, "tokens a page")->check(positive)->capture_default_str();
}

}  // namespace

void add_replay(CLI::App& app, Action& chosen) {
  CLI::App* const sub =
      app.add_subcommand("replay", "Decode a real trace step by step as a serving engine does: append, plan, attention of each layer");
  auto const command = std::make_shared<ReplayCommand>();
  ReplayOptions& options = command->options;
  sub->add_option("trace", options.trace, "Mooncake .jsonl or Azure .csv; see data/")->required();
  add_size_options(*sub, options);
  sub->add_option("--dtype", options.dtype, "bf16 or fp16")->capture_default_str();
  sub->add_option("--checks", options.checks, "outputs compared with the reference")
      ->check(whole_number(0, 1000000))
      ->capture_default_str();
  sub->add_flag("!--no-sharing", options.share_prefixes, "give every request pages of its own, also where prompts begin alike");
  sub->add_option("--time-scale", options.time_scale,
                  "trace seconds that pass in a second of decoding; 0: all requests wait from the start")
      ->check(number_from(0))
      ->capture_default_str();
  sub->add_option("--seed", options.seed, "of the random caches, queries and choices")->capture_default_str();
  sub->add_option("--picture", command->picture, "write an SVG of the run");
  add_backend_options(*sub, options.backend);
  add_json_flag(*sub, command->json);
  sub->callback([&chosen, command] { chosen = [command] { return run(*command); }; });
}

}  // namespace flashmla::tools
