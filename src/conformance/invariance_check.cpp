#include "conformance/invariance_check.hpp"

#include <algorithm>
#include <cstring>
#include <memory>

#include "conformance/decode_check.hpp"
#include "conformance/decode_inputs.hpp"

namespace flashmla::conformance {
namespace {

struct PlanDeleter {
  void operator()(flashmla_plan* plan) const { flashmla_plan_destroy(plan); }
};

/// Requests [first, first + count) of a batch as a batch of their own; the schedule is made for `shift` requests further on.
struct Slice {
  int32_t first, count, shift;
};

int64_t elem_bytes(flashmla_view const& view) { return view.dtype == FLASHMLA_FP32 || view.dtype == FLASHMLA_INT32 ? 4 : 2; }

flashmla_view slice(flashmla_view view, int64_t first, int64_t count) {
  if (view.data == nullptr) return view;
  view.data = static_cast<char*>(view.data) + first * view.stride[0] * elem_bytes(view);
  view.size[0] = count;
  return view;
}

class InvarianceCheck {
 public:
  InvarianceCheck(DecodeCase const& c, Bench const& bench)
      : case_(c), bench_(bench), inputs_(c, bench.memory), random_(seed_of(c.name.c_str()) + 3) {}

  Outcome run() {
    if (Outcome const outcome = run_slice(bench_.target, {0, case_.batch(), 0}); outcome.status != Status::kPassed) return outcome;
    out_.assign(inputs_.out().host(), inputs_.out().host() + inputs_.out().bytes());
    lse_.assign(inputs_.lse().host(), inputs_.lse().host() + inputs_.lse().bytes());
    for (int round = 0; round < 12; ++round) {
      flashmla_target target = bench_.target;
      constexpr int32_t kThreads[] = {1, 2, 3, 5, 8}, kMultiprocessors[] = {0, 1, 7, 60, 131};
      if (target.device.kind == FLASHMLA_CPU) target.num_threads = kThreads[round % 5];
      else target.num_sms = kMultiprocessors[round % 5];
      int32_t const first = random_.between(0, case_.batch() - 1), count = random_.between(1, case_.batch() - first);
      // A schedule of other requests, every third time: it has as many, but of other lengths.
      Slice const slice = {first, count, round % 3 == 2 ? random_.between(0, case_.batch() - first - count) : 0};
      if (Outcome const outcome = run_slice(target, slice); outcome.status != Status::kPassed) return outcome;
      std::string const where = "requests " + std::to_string(first) + " to " + std::to_string(first + count - 1) + " alone, " +
                                std::to_string(target.num_threads) + " threads, " + std::to_string(target.num_sms) + " multiprocessors: ";
      if (std::string const text = difference("out", out_, inputs_.out(), slice); !text.empty()) return failed(where + text);
      if (std::string const text = difference("lse", lse_, inputs_.lse(), slice); !text.empty()) return failed(where + text);
    }
    return {};
  }

 private:
  Outcome run_slice(flashmla_target const& target, Slice const& which) {
    flashmla_problem const problem = make_problem(case_);
    flashmla_plan* made = nullptr;
    if (auto const status = flashmla_plan_create(&problem, &target, &made); status != FLASHMLA_OK) return refused("plan_create", status);
    std::unique_ptr<flashmla_plan, PlanDeleter> const plan(made);
    flashmla_device const device = bench_.memory.device();
    flashmla_stream const stream = bench_.memory.stream();
    Buffer const schedule(bench_.memory, flashmla_plan_schedule_bytes(made)), workspace(bench_.memory, flashmla_plan_workspace_bytes(made));
    flashmla_view const schedule_view = byte_view(schedule, device), workspace_view = byte_view(workspace, device);

    flashmla_decode_args args = inputs_.args();
    flashmla_lengths lengths = args.lengths;
    lengths.kv_len = slice(args.lengths.kv_len, which.first + which.shift, which.count);
    lengths.q_offsets = slice(args.lengths.q_offsets, which.first + which.shift, which.count + 1);
    for (flashmla_view* const view : {&args.page_table, &args.lengths.kv_len}) *view = slice(*view, which.first, which.count);
    // Offsets need not begin at 0, so that ragged requests stay where they are; rows of others are then nobody's.
    args.lengths.q_offsets = slice(args.lengths.q_offsets, which.first, which.count + 1);
    for (flashmla_view* const view : {&args.q, &args.out, &args.lse})
      if (!case_.is_ragged()) *view = slice(*view, which.first, which.count);
    inputs_.poison_outputs();
    auto status = flashmla_plan_reset(made, &workspace_view, stream);
    if (status == FLASHMLA_OK) status = flashmla_plan_update(made, &lengths, &schedule_view, stream);
    if (status == FLASHMLA_OK) status = flashmla_plan_run(made, &args, &schedule_view, &workspace_view, stream);
    if (status != FLASHMLA_OK) return refused("plan_run", status);
    inputs_.download_outputs();
    return {};
  }

  /// The requests of a slice lie one behind the other in outputs without padding, ragged ones in lse by tokens and heads.
  [[nodiscard]] std::string difference(char const* name, std::vector<std::byte> const& expected, Buffer const& actual,
                                       Slice const& which) const {
    size_t const tokens = static_cast<size_t>(case_.total_q()), each = expected.size() / tokens;  // bytes a query token
    auto const first_of = [&](int32_t request) {
      return each * static_cast<size_t>(case_.is_ragged() ? case_.q_offsets[static_cast<size_t>(request)] : request * case_.q_tokens);
    };
    for (size_t i = first_of(which.first); i < first_of(which.first + which.count); ++i)
      if (expected[i] != actual.host()[i])
        return std::string(name) + " of query token " + std::to_string(i / each) + " differs at byte " + std::to_string(i % each);
    return "";
  }

  DecodeCase const& case_;
  Bench const& bench_;
  DecodeInputs inputs_;
  Random random_;
  std::vector<std::byte> out_, lse_;
};

}  // namespace

Outcome check_invariance(DecodeCase const& c, Bench const& bench) { return InvarianceCheck(with_bounded_chunks(c, bench), bench).run(); }

std::vector<DecodeCase> invariance_cases(Tier tier) {
  std::vector<DecodeCase> cases;
  auto const add = [&](std::string const& name, int32_t h_q, int32_t batch, int32_t longest, auto const& change) {
    for (flashmla_kv_format const format : {FLASHMLA_KV_BF16_576, FLASHMLA_KV_FP16_576, FLASHMLA_KV_FP32_576}) {
      DecodeCase c;
      c.name = name + (format == FLASHMLA_KV_BF16_576 ? "" : format == FLASHMLA_KV_FP16_576 ? ".fp16" : ".fp32");
      c.format = format;
      c.h_q = h_q;
      c.batch_invariant = true;
      c.chunk_tokens = 64;
      Random random(seed_of(name.c_str()));
      for (int32_t i = 0; i < batch; ++i) c.kv_len.push_back(random.between(0, 5) == 0 ? 0 : random.between(1, longest));
      change(c);
      cases.push_back(std::move(c));
    }
  };
  auto const nothing = [](DecodeCase&) {};
  for (auto const& [format, name] : {std::pair(FLASHMLA_KV_BF16_320, "bf16_320"), std::pair(FLASHMLA_KV_BF16_288, "bf16_288")}) {
    DecodeCase c;
    c.name = name;
    c.format = format;
    c.h_q = 20;
    c.batch_invariant = true;
    c.chunk_tokens = 64;
    c.kv_len = {700, 0, 65, 1, 320, 129};
    cases.push_back(std::move(c));
  }
  for (int32_t const h_q : {1, 4, 16, 40}) add("heads_" + std::to_string(h_q), h_q, 7, 700, nothing);
  add("chunk_128_causal", 3, 6, 900, [](DecodeCase& c) { c.chunk_tokens = 128, c.q_tokens = 3, c.causal = true; });
  add("chunk_by_default", 16, 4, 3000, [](DecodeCase& c) { c.chunk_tokens = 0; });
  add("kv_heads_sink", 12, 5, 500, [](DecodeCase& c) { c.h_kv = 3, c.sink = Sink::kFinite, c.page_tokens = 16; });
  add("declared_length", 8, 5, 640, [](DecodeCase& c) { c.max_kv_len = 640; });
  auto const ragged = [](DecodeCase& c, int32_t longest) {
    Random random(seed_of(c.name.c_str()) + 4);
    c.lse_layout = FLASHMLA_LSE_TOKENS_HEADS, c.q_tokens = longest, c.causal = true, c.q_offsets = {0};
    for (int32_t i = 0; i < c.batch(); ++i) c.q_offsets.push_back(c.q_offsets.back() + random.between(0, longest));
    c.ragged_tokens = c.q_offsets.back() + 3;
  };
  add("ragged", 16, 8, 600, [&](DecodeCase& c) { ragged(c, 3); });
  add("ragged_row_tiles", 20, 5, 500, [&](DecodeCase& c) { ragged(c, 40); });
  if (tier == Tier::kSmoke) return cases;
  add("batch_40", 5, 40, 1500, nothing);
  add("row_tiles", 64, 3, 400, [](DecodeCase& c) { c.q_tokens = 6, c.causal = true; });
  add("longer_chunks", 1, 3, 40000, nothing);  // 625 chunks of 64 are too many
  return cases;
}

}  // namespace flashmla::conformance
