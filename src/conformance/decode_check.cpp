#include "conformance/decode_check.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <tuple>

#include "conformance/compare.hpp"
#include "conformance/decode_inputs.hpp"
#include "reference/scalar.hpp"

namespace flashmla::conformance {
namespace {

using reference::Row;

struct PlanDeleter {
  void operator()(flashmla_plan* plan) const { flashmla_plan_destroy(plan); }
};
using Plan = std::unique_ptr<flashmla_plan, PlanDeleter>;

/// A row may be so much worse than its tensor.
constexpr double kRowSlack = 1.5;

std::string triple(Row const& row) {
  return std::to_string(row.request) + ", " + std::to_string(row.q_idx) + ", " + std::to_string(row.head);
}

/// One case on one machine, from its plan to its verdict. Each step returns a passed outcome to go on.
class DecodeCheck {
 public:
  DecodeCheck(DecodeCase const& c, Bench const& bench) : case_(c), bench_(bench), problem_(make_core_problem(c)) {}

  Outcome run() {
    using Step = Outcome (DecodeCheck::*)();
    constexpr Step kSteps[] = {&DecodeCheck::make_plan,    &DecodeCheck::prepare,       &DecodeCheck::run_all,
                               &DecodeCheck::check_faults, &DecodeCheck::check_written, &DecodeCheck::check_values};
    for (Step const step : kSteps)
      if (Outcome const outcome = (this->*step)(); outcome.status != Status::kPassed) return outcome;
    Outcome passed;
    passed.out_l2 = out_l2_;
    passed.lse_abs = lse_abs_;
    return passed;
  }

 private:
  Outcome make_plan() {
    flashmla_problem const problem = make_problem(case_);
    flashmla_plan* plan = nullptr;
    if (auto const status = flashmla_plan_create(&problem, &bench_.target, &plan); status != FLASHMLA_OK)
      return refused("plan_create", status);
    plan_.reset(plan);
    return {};
  }

  /// Tensors, and a workspace that is ready.
  Outcome prepare() {
    inputs_ = std::make_unique<DecodeInputs>(case_, bench_.memory);
    schedule_ = Buffer(bench_.memory, flashmla_plan_schedule_bytes(plan_.get()));
    workspace_ = Buffer(bench_.memory, flashmla_plan_workspace_bytes(plan_.get()), Mirror::kGuards);
    flashmla_view const workspace = byte_view(workspace_, device());
    auto const status = flashmla_plan_reset(plan_.get(), &workspace, stream());
    return status == FLASHMLA_OK ? Outcome{} : refused("plan_reset", status);
  }

  Outcome run_all() {
    flashmla_view const schedule = byte_view(schedule_, device()), workspace = byte_view(workspace_, device());
    flashmla_lengths const lengths = inputs_->schedule_lengths();
    if (case_.update_schedule)
      if (auto const status = flashmla_plan_update(plan_.get(), &lengths, &schedule, stream()); status != FLASHMLA_OK)
        return refused("plan_update", status);

    flashmla_decode_args const args = inputs_->args();
    std::vector<std::byte> out, lse;  // of the first run
    for (int32_t run = 0; run < case_.runs; ++run) {
      inputs_->poison_outputs();
      if (auto const status = flashmla_plan_run(plan_.get(), &args, &schedule, &workspace, stream()); status != FLASHMLA_OK)
        return refused_run(status);
      inputs_->download_outputs();
      if (run == 0) {
        out = bytes_of(inputs_->out());
        lse = bytes_of(inputs_->lse());
      } else if (std::string const text = difference(out, lse); !text.empty()) {
        Outcome outcome = failed("run " + std::to_string(run + 1) + " gives other bits than run 1: " + text);
        outcome.other_bits = true;
        return outcome;
      }
    }
    return {};
  }

  /// An alignment that a GPU cannot serve is known only when the views come: the message is all there is to see.
  Outcome refused_run(flashmla_status status) const {
    bool const may_refuse = case_.cache_layout == CacheLayout::kUnaligned && device().kind == FLASHMLA_CUDA;
    return may_refuse && status == FLASHMLA_INVALID_ARGUMENT ? skipped(flashmla_last_error()) : refused("plan_run", status);
  }

  std::string difference(std::vector<std::byte> const& out, std::vector<std::byte> const& lse) const {
    if (int64_t const at = first_difference(out, bytes_of(inputs_->out())); at >= 0) return "out at byte " + std::to_string(at);
    if (int64_t const at = first_difference(lse, bytes_of(inputs_->lse())); at >= 0) return "lse at byte " + std::to_string(at);
    return "";
  }

  Outcome check_faults() {
    flashmla_view const workspace = byte_view(workspace_, device());
    flashmla_fault found{}, again{};
    if (auto const status = flashmla_plan_fault(plan_.get(), &workspace, stream(), &found); status != FLASHMLA_OK)
      return refused("plan_fault", status);
    if (auto const status = flashmla_plan_fault(plan_.get(), &workspace, stream(), &again); status != FLASHMLA_OK)
      return refused("plan_fault", status);
    if (again.code != FLASHMLA_FAULT_NONE) return failed("fault record: got " + text_of(again) + " when read again, expected none");

    std::vector<flashmla_fault> expected = reference::faults(problem_, inputs_->host_call());
    if (!case_.schedule_matches()) {
      int32_t const batch = case_.update_schedule ? static_cast<int32_t>(case_.schedule_batch()) : found.value;
      expected.push_back({FLASHMLA_FAULT_SCHEDULE_MISMATCH, found.request, found.position, batch, {}});
    }
    if (expected.empty() && found.code == FLASHMLA_FAULT_NONE) return {};
    std::string wanted;
    for (flashmla_fault const& fault : expected) {
      if (same(fault, found)) return {};
      wanted += (wanted.empty() ? "" : " or ") + text_of(fault);
    }
    return failed("fault record: got " + text_of(found) + ", expected " + (wanted.empty() ? "none" : wanted));
  }

  /// Every row was written and holds no NaN; nothing else was written.
  Outcome check_written() {
    if (std::string const text = inputs_->overwritten(); !text.empty()) return failed("written outside the views: " + text);
    schedule_.download();
    workspace_.download();
    if (!schedule_.guards_intact()) return failed("written outside the views: memory around the schedule");
    if (!workspace_.guards_intact()) return failed("written outside the views: memory around the workspace");
    if (!case_.schedule_matches()) return {};  // what such a run computes is not promised

    core::DecodeCall const call = inputs_->host_call();
    std::vector<double> values(static_cast<size_t>(problem_.format->v_dim));
    for (int32_t b = 0; b < call.batch; ++b)
      for (int32_t t = 0; t < case_.tokens_of(b).count; ++t)
        for (int32_t h = 0; h < problem_.h_q; ++h) {
          double lse = 0;
          read_row(call, {b, t, h}, values.data(), lse);
          // NaN is contagious: a sum of the row tells whether there is any.
          if (std::isnan(std::accumulate(values.begin(), values.end(), 0.0)))
            return failed("out[" + triple({b, t, h}) + "] holds NaN: poison, or never written");
          if (std::isnan(lse)) return failed("lse of row [" + triple({b, t, h}) + "] is NaN: poison, or never written");
        }
    return {};
  }

  void read_row(core::DecodeCall const& call, Row row, double* out, double& lse) const {
    int64_t const token = case_.tokens_of(row.request).first + row.q_idx;
    auto const at = [&](core::RowStrides const& s) { return row.request * s.batch + token * s.token + row.head * s.head; };
    reference::load(problem_.out_dtype, call.out, at(call.out_stride), problem_.format->v_dim, out);
    if (call.lse) lse = call.lse[at(call.lse_stride)];
  }

  Outcome check_values() {
    if (!case_.schedule_matches()) return {};
    core::DecodeCall const call = inputs_->host_call();
    double const mean_len =
        std::accumulate(case_.kv_len.begin(), case_.kv_len.end(), 0.0, [&](double sum, int32_t len) { return sum + std::max(len, 0); }) /
        case_.batch();
    std::vector<Row> const rows = rows_to_check(case_, bench_.oracle.row_budget(mean_len));
    size_t const width = static_cast<size_t>(problem_.format->v_dim);
    std::vector<double> out(rows.size() * width), lse(rows.size()), expected_out(out.size()), expected_lse(lse.size());
    for (size_t i = 0; i < rows.size(); ++i) read_row(call, rows[i], &out[i * width], lse[i]);
    core::DecodeCall const oracle_call = bench_.oracle.memory() == FLASHMLA_CPU ? call : inputs_->device_call();
    bench_.oracle.decode(problem_, oracle_call, rows, expected_out.data(), expected_lse.data());

    auto const out_at = [&](size_t i) { return "out[" + triple(rows[i / width]) + ", " + std::to_string(i % width) + "]"; };
    auto const lse_at = [&](size_t i) { return "lse of row [" + triple(rows[i]) + "]"; };
    for (size_t i = 0; i < out.size(); ++i)
      if (std::isinf(expected_lse[i / width]) && out[i] != 0) return failed(out_at(i) + " is not 0, but the row sees no key");
    Tolerance const tolerance = out_tolerance(problem_.q_dtype, problem_.out_dtype);
    Comparison const of_out = compare(out, expected_out, tolerance, out_at);
    Tolerance lse_bounds = lse_tolerance(static_cast<flashmla_device_kind>(device().kind), problem_.q_dtype);
    lse_bounds.abs = std::max(lse_bounds.abs, bench_.lse_abs);
    Comparison const of_lse = call.lse ? compare(lse, expected_lse, lse_bounds, lse_at) : Comparison{};
    out_l2_ = of_out.relative_l2;
    lse_abs_ = of_lse.worst_abs;
    RowBound const bound{kRowSlack * tolerance.l2, problem_.out_dtype == FLASHMLA_FP16 ? bench_.fp16_abs : 0};
    if (int64_t const row = first_bad_row(out, expected_out, width, bound); of_out.ok && row >= 0)
      return failed("out[" + triple(rows[static_cast<size_t>(row)]) + "] has a relative L2 error of more than " + std::to_string(bound.l2));
    if (of_out.ok && of_lse.ok) return {};
    return failed(of_out.text + (of_out.ok || of_lse.ok ? "" : "; ") + of_lse.text);
  }

  static std::vector<std::byte> bytes_of(Buffer const& buffer) {
    return buffer.device() ? std::vector<std::byte>(buffer.host(), buffer.host() + buffer.bytes()) : std::vector<std::byte>{};
  }
  [[nodiscard]] flashmla_device device() const { return bench_.memory.device(); }
  [[nodiscard]] flashmla_stream stream() const { return bench_.memory.stream(); }

  DecodeCase const& case_;
  Bench const& bench_;
  core::Problem problem_;
  Plan plan_;
  std::unique_ptr<DecodeInputs> inputs_;
  Buffer schedule_, workspace_;
  double out_l2_ = 0, lse_abs_ = 0;
};

}  // namespace

DecodeCase with_bounded_chunks(DecodeCase c, Bench const& bench) {
  if (c.batch_invariant && c.max_kv_len == 0 && bench.target.device.kind == FLASHMLA_CUDA)
    c.max_kv_len = std::max(*std::max_element(c.kv_len.begin(), c.kv_len.end()), 1);
  return c;
}

Outcome check_decode(DecodeCase const& c, Bench const& bench) { return DecodeCheck(with_bounded_chunks(c, bench), bench).run(); }

namespace {

std::vector<Row> ragged_rows_to_check(DecodeCase const& c, int64_t budget) {
  std::vector<Row> tokens;  // of all requests
  for (int32_t r = 0; r < c.batch(); ++r)
    for (int32_t t = 0; t < c.tokens_of(r).count; ++t) tokens.push_back({r, t, 0});
  auto const num_tokens = static_cast<int64_t>(tokens.size());
  std::vector<Row> rows;
  if (num_tokens * c.h_q <= budget) {
    for (Row const& token : tokens)
      for (int32_t h = 0; h < c.h_q; ++h) rows.push_back({token.request, token.q_idx, h});
    return rows;
  }
  Random random(seed_of(c.name.c_str()) + 1);
  auto const add = [&](size_t token, int32_t head) { rows.push_back({tokens[token].request, tokens[token].q_idx, head}); };
  add(0, 0);
  add(tokens.size() - 1, c.h_q - 1);
  // Each request's first and last token while there is room, then whatever comes.
  for (size_t i = 0; i < tokens.size() && static_cast<int64_t>(rows.size()) < budget / 2; ++i)
    if (tokens[i].q_idx == 0 || i + 1 == tokens.size() || tokens[i + 1].q_idx == 0) add(i, random.between(0, c.h_q - 1));
  while (static_cast<int64_t>(rows.size()) < budget)
    add(static_cast<size_t>(random.between(0, static_cast<int32_t>(num_tokens - 1))), random.between(0, c.h_q - 1));
  return rows;
}

}  // namespace

std::vector<Row> rows_to_check(DecodeCase const& c, int64_t budget) {
  if (c.is_ragged()) return ragged_rows_to_check(c, budget);
  int32_t const last_request = c.batch() - 1, last_token = c.q_tokens - 1, last_head = c.h_q - 1;
  int64_t const total = static_cast<int64_t>(c.batch()) * c.q_tokens * c.h_q;
  std::vector<Row> rows;
  if (total <= budget) {
    for (int64_t i = 0; i < total; ++i)
      rows.push_back(
          {static_cast<int32_t>(i / c.h_q / c.q_tokens), static_cast<int32_t>(i / c.h_q % c.q_tokens), static_cast<int32_t>(i % c.h_q)});
    return rows;
  }
  std::set<std::tuple<int32_t, int32_t, int32_t>> chosen;
  auto const add = [&](Row row) {
    if (chosen.insert({row.request, row.q_idx, row.head}).second) rows.push_back(row);
  };
  auto const [shortest, longest] = std::minmax_element(c.kv_len.begin(), c.kv_len.end());
  add({static_cast<int32_t>(longest - c.kv_len.begin()), last_token, last_head});
  add({static_cast<int32_t>(shortest - c.kv_len.begin()), 0, last_head / 2});
  add({0, 0, 0});
  add({last_request, last_token, last_head});
  add({last_request, 0, 0});
  add({0, last_token, last_head});
  Random random(seed_of(c.name.c_str()) + 1);
  while (static_cast<int64_t>(rows.size()) < budget)
    add({random.between(0, last_request), random.between(0, last_token), random.between(0, last_head)});
  return rows;
}

}  // namespace flashmla::conformance
