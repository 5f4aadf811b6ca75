// What a split of work amounts to: see split_summary.hpp.
#include "tools/flashmla/split_summary.hpp"

#include <algorithm>
#include <utility>

#include "tools/flashmla/text.hpp"

namespace flashmla::tools {
namespace {

/// How far the parts of one (request, row tile) have come.
struct Covered {
  int32_t next_token = 0;
  int32_t num_parts = 0;
  int32_t num_splits = 0;
};

std::string name(Part const& part) { return format("request %d, row tile %d, split %d", part.request, part.row_tile, part.split); }

std::string defect_of(Part const& part, Covered const& so_far, int32_t kv_len) {
  if (part.split != so_far.num_parts) return name(part) + format(": got split %d, expected %d", part.split, so_far.num_parts);
  if (part.first_token != so_far.next_token)
    return name(part) + format(": got first token %d, expected %d", part.first_token, so_far.next_token);
  bool const only = part.num_splits == 1 && kv_len == 0;
  if (part.last_token <= part.first_token && !only) return name(part) + ": got no tokens, expected at least 1";
  if (so_far.num_parts > 0 && part.num_splits != so_far.num_splits)
    return name(part) + format(": got %d splits, expected %d", part.num_splits, so_far.num_splits);
  return "";
}

/// Row tiles that each request must have: as many as any request has that has no more query tokens.
std::vector<int64_t> expected_row_tiles(std::vector<int64_t> const& found, std::vector<int32_t> const& q_tokens) {
  std::map<int32_t, int64_t> by_q_tokens;
  for (size_t i = 0; i < found.size(); ++i) {
    int64_t& most = by_q_tokens[q_tokens.empty() ? 1 : q_tokens[i]];
    most = std::max(most, found[i]);
  }
  int64_t most = 0;
  for (auto& [count, tiles] : by_q_tokens) most = tiles = count == 0 ? 0 : std::max<int64_t>({tiles, most, 1});
  std::vector<int64_t> expected;
  for (size_t i = 0; i < found.size(); ++i) expected.push_back(by_q_tokens.at(q_tokens.empty() ? 1 : q_tokens[i]));
  return expected;
}

}  // namespace

SplitSummary summarise(std::vector<Part> const& parts, std::vector<int32_t> const& kv_len, std::vector<int32_t> const& q_tokens) {
  SplitSummary summary;
  std::map<std::pair<int32_t, int32_t>, Covered> covered;
  std::vector<int64_t> row_tiles(kv_len.size());
  for (Part const& part : parts) {
    if (part.request < 0 || static_cast<size_t>(part.request) >= kv_len.size()) {
      summary.defect = format("request %d: got a part, expected requests below %zu", part.request, kv_len.size());
      return summary;
    }
    Covered& item = covered[{part.request, part.row_tile}];
    std::string const defect = defect_of(part, item, kv_len[static_cast<size_t>(part.request)]);
    if (summary.defect.empty()) summary.defect = defect;
    item = {part.last_token, item.num_parts + 1, part.num_splits};
    summary.load_tokens[part.worker] += part.last_token - part.first_token;
    int64_t& tiles = row_tiles[static_cast<size_t>(part.request)];
    tiles = std::max<int64_t>(tiles, part.row_tile + 1);
    if (!q_tokens.empty() && q_tokens[static_cast<size_t>(part.request)] == 0 && summary.defect.empty())
      summary.defect = name(part) + ": got a part, expected none (no query token)";
  }
  row_tiles = expected_row_tiles(row_tiles, q_tokens);
  for (size_t request = 0; request < kv_len.size(); ++request) {
    summary.row_tiles = std::max(summary.row_tiles, row_tiles[request]);
    for (int32_t tile = 0; tile < row_tiles[request]; ++tile) {
      Covered const& item = covered[{static_cast<int32_t>(request), tile}];
      bool const whole = item.next_token == kv_len[request] && item.num_parts == item.num_splits && item.num_parts > 0;
      if (!whole && summary.defect.empty())
        summary.defect = format("request %zu, row tile %d: got %d tokens in %d of %d parts, expected %d tokens", request, tile,
                                item.next_token, item.num_parts, item.num_splits, kv_len[request]);
      if (item.num_parts > 1) ++summary.split_items;
    }
  }
  int64_t total = 0;
  for (auto const& [worker, load] : summary.load_tokens) {
    total += load;
    summary.largest_tokens = std::max(summary.largest_tokens, load);
  }
  if (!summary.load_tokens.empty()) summary.mean_tokens = static_cast<double>(total) / static_cast<double>(summary.load_tokens.size());
  if (summary.largest_tokens > 0) summary.balance = summary.mean_tokens / static_cast<double>(summary.largest_tokens);
  return summary;
}

}  // namespace flashmla::tools
