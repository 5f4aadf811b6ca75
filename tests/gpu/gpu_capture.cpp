// Graph capture, shared schedules and the device planner, on a GPU.
//
//   gpu_capture [--schedules 2000]
//
// The first test must be the first in the process: a plan is made, and its kernels are loaded, inside a capture.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <thread>

#include "conformance/buffer.hpp"
#include "cuda/decode_plan.hpp"
#include "gpu/decode_setup.hpp"
#include "gpu/hold_processors.hpp"
#include "gpu/planner_check.hpp"

namespace flashmla::test {
namespace {

constexpr double kMaxOutL2 = 2.8e-3, kMaxLseAbs = 1e-5;

struct Stream {
  cudaStream_t get = nullptr;
  Stream() { check_call(cudaStreamCreateWithFlags(&get, cudaStreamNonBlocking), "cudaStreamCreate"); }
  ~Stream() { cudaStreamDestroy(get); }
  Stream(Stream const&) = delete;
  Stream& operator=(Stream const&) = delete;
};

void expect(bool holds, std::string const& what) {
  if (!holds) throw std::runtime_error(what);
}

std::vector<int32_t> numbers_below(size_t end) {
  std::vector<int32_t> numbers(end);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

void expect_right(DecodeSetup const& setup, std::string const& what) {
  DecodeSetup::Errors const errors = setup.compare(0, numbers_below(setup.lens().size()));
  char text[128];
  std::snprintf(text, sizeof(text), ": out L2 error %.2e, lse error %.2e", errors.out_l2, errors.lse_abs);
  expect(errors.out_l2 <= kMaxOutL2 && errors.lse_abs <= kMaxLseAbs, what + text);
}

void expect_fault(DecodeSetup const& setup, cudaStream_t stream, int32_t code, std::string const& what) {
  flashmla_fault fault{};
  setup.plan().fault(setup.workspace(), stream, fault);
  expect(fault.code == code, what + ": got fault " + std::to_string(fault.code) + ", expected " + std::to_string(code));
}

void synchronize(cudaStream_t stream) { check_call(cudaStreamSynchronize(stream), "cudaStreamSynchronize"); }

BenchCase mixed_case(int32_t batch, int32_t h_q, int32_t q_tokens) {
  return {"mixed", batch, q_tokens, h_q, 0, Lens::kFixed, q_tokens > 1};
}

std::vector<int32_t> random_lens(int32_t batch, int32_t longest, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::vector<int32_t> lens(static_cast<size_t>(batch));
  for (int32_t& length : lens) length = engine() % 5 == 0 ? 0 : static_cast<int32_t>(engine() % static_cast<uint64_t>(longest + 1));
  return lens;
}

std::vector<int32_t> full_lens(int32_t batch, int32_t longest) { return std::vector<int32_t>(static_cast<size_t>(batch), longest); }

// A plan made inside a capture, then replays of that capture with other lengths and pages.
void test_capture(BenchCase const& c, int32_t longest, bool is_fp16) {
  SetupOptions options;
  options.is_plan_late = true;
  options.is_fp16 = is_fp16;
  options.out_dtype = is_fp16 ? FLASHMLA_FP16 : FLASHMLA_BF16;
  DecodeSetup setup(c, full_lens(c.batch, longest), options);
  Stream stream;
  setup.set_lengths(random_lens(c.batch, longest / 4, 3));
  synchronize(nullptr);
  Graph graph;
  graph.capture(stream.get, [&] {
    setup.make_plan();
    setup.reset(stream.get);
    setup.update(stream.get);
    setup.run(0, stream.get);
  });
  auto const replay = [&](std::string const& what) {
    setup.poison_outputs();
    synchronize(nullptr);
    graph.replay(stream.get);
    synchronize(stream.get);
    expect_right(setup, what);
    expect_fault(setup, stream.get, FLASHMLA_FAULT_NONE, what);
  };
  replay("first replay");
  std::vector<char> const first = setup.download_out();
  replay("second replay");
  expect(first == setup.download_out(), "two replays differ in bits");
  setup.set_lengths(full_lens(c.batch, longest));
  replay("longer");
  setup.set_lengths(random_lens(c.batch, longest, 5));
  setup.shuffle_pages(11);
  replay("other pages");
  setup.set_lengths(random_lens(c.batch, 70, 7));
  replay("shorter");
  setup.set_lengths(full_lens(c.batch, 0));
  replay("all empty");
  std::vector<int32_t> one = full_lens(c.batch, 0);
  one.back() = longest;
  setup.set_lengths(one);
  replay("one request");
}

// A schedule of other lengths costs balance only.
void test_stale_schedule(BenchCase const& c, int32_t longest) {
  DecodeSetup setup(c, full_lens(c.batch, longest), {});
  Stream stream;
  setup.reset(stream.get);
  for (uint64_t seed = 0; seed < 12; ++seed) {
    setup.set_lengths(random_lens(c.batch, seed % 3 == 0 ? 100 : longest, 2 * seed));
    synchronize(nullptr);
    setup.update(stream.get);
    synchronize(stream.get);
    setup.set_lengths(seed % 4 == 3 ? full_lens(c.batch, 0) : random_lens(c.batch, seed % 3 == 1 ? 100 : longest, 2 * seed + 1));
    setup.poison_outputs();
    synchronize(nullptr);
    setup.run(0, stream.get);
    synchronize(stream.get);
    expect_right(setup, "stale schedule " + std::to_string(seed));
    expect_fault(setup, stream.get, FLASHMLA_FAULT_NONE, "stale schedule " + std::to_string(seed));
  }
}

// Two streams follow one schedule at the same time, each with its own workspace and output.
void test_shared_schedule(BenchCase const& c, int32_t longest) {
  DecodeSetup setup(c, full_lens(c.batch, longest), {});
  Stream streams[2];
  setup.reset(streams[0].get);
  setup.update(streams[0].get);
  setup.run(0, streams[0].get);
  synchronize(streams[0].get);
  expect_right(setup, "alone");
  std::vector<char> const alone = setup.download_out();

  DeviceArray<char> workspace(setup.plan().workspace_bytes()), out(alone.size());
  setup.plan().reset(workspace.get(), streams[1].get);
  core::DecodeCall other = setup.call(0);
  other.out = out.get();
  other.lse = nullptr;
  for (int i = 0; i < 200; ++i) {
    setup.run(0, streams[0].get);
    setup.plan().run(other, setup.schedule(), workspace.get(), streams[1].get);
  }
  synchronize(streams[0].get);
  synchronize(streams[1].get);
  expect(setup.download_out() == alone && out.download() == alone, "streams that share a schedule disturb each other");
}

/// The setup's call, of one query token a request, said with q_offsets: it takes the kernels for ragged queries.
struct RaggedCall {
  RaggedCall(DecodeSetup const& setup, BenchCase const& c)
      : offsets(numbers_below(static_cast<size_t>(c.batch) + 1)), call(setup.call(0)), lengths(setup.lengths()) {
    call.q_offsets = lengths.q_offsets = offsets.get();
    call.total_q = c.batch;
    call.q_nope_stride.batch = call.q_pe_stride.batch = call.out_stride.batch = 0;
    call.lse_stride = {0, c.h_q, 1};
  }

  DeviceArray<int32_t> offsets;
  core::DecodeCall call;
  core::LengthsCall lengths;
};

// Where the CTAs of a grid cannot all run at once, those that share an item give up waiting, and whoever comes last finishes it, to the
// same bits; counters and flags are back at zero after that.
void test_few_processors(BenchCase const& c, int32_t longest, bool is_ragged = false) {
  DecodeSetup setup(c, full_lens(c.batch, longest), {});
  RaggedCall const ragged(setup, c);
  core::DecodeCall const call = is_ragged ? ragged.call : setup.call(0);
  Stream stream;
  setup.reset(stream.get);
  setup.plan().update(is_ragged ? ragged.lengths : setup.lengths(), setup.schedule(), stream.get);
  int all = 0;
  check_call(cudaDeviceGetAttribute(&all, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  auto const run = [&](int free) {
    setup.poison_outputs();
    synchronize(nullptr);
    {
      // While processors are held, nothing but this one launch: much else of CUDA waits for all kernels.
      ProcessorHold const hold(all - free);
      setup.plan().run(call, setup.schedule(), setup.workspace(), stream.get);
      auto const start = std::chrono::steady_clock::now();
      while (cudaStreamQuery(stream.get) == cudaErrorNotReady)
        expect(std::chrono::steady_clock::now() - start < std::chrono::seconds(5),
               "does not end on " + std::to_string(free) + " multiprocessors");
    }
    synchronize(stream.get);
    return setup.download_out();
  };
  std::vector<char> const alone = run(all);
  expect_right(setup, "all multiprocessors");
  for (int const free : {1, 2, 3, all / 2}) {
    expect(run(free) == alone, std::to_string(free) + " multiprocessors: other bits than with all");
    expect(run(all) == alone, "all multiprocessors after " + std::to_string(free) + ": other bits than before");
    expect_fault(setup, stream.get, FLASHMLA_FAULT_NONE, std::to_string(free) + " multiprocessors");
  }
}

// What one of two callers of a plan owns, and what it computes when nobody is beside it.
struct Side {
  Side(BenchCase const& c, int32_t longest, uint64_t seed) : setup(c, random_lens(c.batch, longest, seed), {}) {}
  void step(core::DecodePlan const& plan) const {
    plan.update(setup.lengths(), setup.schedule(), stream.get);
    plan.run(setup.call(0), setup.schedule(), setup.workspace(), stream.get);
  }
  void run_alone(core::DecodePlan const& plan, std::string const& what) {
    plan.reset(setup.workspace(), stream.get);
    step(plan);
    synchronize(stream.get);
    expect_right(setup, what);
    alone = setup.download_out();
    setup.poison_outputs();
  }
  void expect_same(core::DecodePlan const& plan, std::string const& what) {
    synchronize(stream.get);
    expect(setup.download_out() == alone, what + ": other bits than alone");
    flashmla_fault fault{};
    plan.fault(setup.workspace(), stream.get, fault);
    expect(fault.code == FLASHMLA_FAULT_NONE, what + ": fault " + std::to_string(fault.code));
    setup.poison_outputs();
  }

  DecodeSetup setup;
  Stream stream;
  std::vector<char> alone;
};

// Two callers with lengths, caches and workspaces of their own use one plan at the same time: eagerly from two threads,
// then as two graphs that are replayed side by side.
void test_one_plan_two_streams(BenchCase const& c, int32_t longest) {
  Side first(c, longest, 21), second(c, longest, 22);
  core::DecodePlan const& plan = first.setup.plan();
  first.run_alone(plan, "first alone"), second.run_alone(plan, "second alone");
  {
    auto const many = [&plan](Side const& side) {
      for (int i = 0; i < 200; ++i) side.step(plan);
    };
    std::jthread const beside([&] {
      check_call(cudaSetDevice(0), "cudaSetDevice");
      many(second);
    });
    many(first);
  }
  first.expect_same(plan, "first beside second"), second.expect_same(plan, "second beside first");
  Graph graphs[2];
  graphs[0].capture(first.stream.get, [&] { first.step(plan); });
  graphs[1].capture(second.stream.get, [&] { second.step(plan); });
  for (int i = 0; i < 100; ++i) graphs[0].replay(first.stream.get), graphs[1].replay(second.stream.get);
  first.expect_same(plan, "first as a graph"), second.expect_same(plan, "second as a graph");
}

void test_mismatch(BenchCase const& c, int32_t longest) {
  DecodeSetup setup(c, full_lens(c.batch, longest), {});
  Stream stream;
  setup.reset(stream.get);
  setup.run(0, stream.get);  // the schedule is all ones
  expect_fault(setup, stream.get, FLASHMLA_FAULT_SCHEDULE_MISMATCH, "schedule never made");
  expect_fault(setup, stream.get, FLASHMLA_FAULT_NONE, "fault read before");
  core::LengthsCall fewer = setup.lengths();
  fewer.batch -= 1;
  setup.plan().update(fewer, setup.schedule(), stream.get);
  setup.run(0, stream.get);
  expect_fault(setup, stream.get, FLASHMLA_FAULT_SCHEDULE_MISMATCH, "schedule of another batch");
  setup.update(stream.get);
  setup.run(0, stream.get);
  synchronize(stream.get);
  expect_right(setup, "after mismatches");
  expect_fault(setup, stream.get, FLASHMLA_FAULT_NONE, "after mismatches");
}

void test_describe(BenchCase const& c) {
  DecodeSetup const setup(c, full_lens(c.batch, 64), {});
  std::string const text = setup.plan().describe();
  for (char const* const part : {"cuda.decode.hopper_bf16_out_bf16", "workers", "rows x 64 tokens", "multiprocessors"})
    expect(text.find(part) != std::string::npos, std::string("describe lacks `") + part + "`: " + text);
}

// Append for the first time in the process inside a capture; slot 130 names no page, -1 is skipped.
void test_append_capture() {
  constexpr size_t kTokens = 5, kDim = 576, kPages = 2, kPageTokens = 64;
  std::vector<uint16_t> tokens(kTokens * kDim), before(kPages * kPageTokens * kDim, 0xffff);
  std::iota(tokens.begin(), tokens.end(), uint16_t{0});
  std::vector<int64_t> const slots = {3, -1, 127, 130, 64};
  DeviceArray<uint16_t> kv(tokens), cache(before);
  DeviceArray<int64_t> slot_mapping(slots);
  DeviceArray<flashmla_fault> fault(std::vector<flashmla_fault>(1));
  core::AppendCall call;
  call.format = core::find_kv_format(FLASHMLA_KV_BF16_576);
  call.tokens = kTokens;
  call.ckv = kv.get();
  call.kpe = kv.get() + 512;
  call.ckv_token_stride = call.kpe_token_stride = kDim;
  call.slot_mapping = slot_mapping.get();
  call.cache = cache.get();
  call.num_pages = kPages, call.page_tokens = kPageTokens, call.page_stride = kPageTokens * kDim, call.token_stride = kDim;
  call.fault = fault.get();
  call.device = {FLASHMLA_CUDA, 0};
  Stream stream;
  synchronize(nullptr);
  Graph graph;
  graph.capture(stream.get, [&] { cuda::make_backend()->append(call, stream.get); });
  graph.replay(stream.get);
  synchronize(stream.get);
  for (size_t t = 0; t < kTokens; ++t)
    if (slots[t] >= 0 && slots[t] < 128)
      std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(t * kDim), kDim,
                  before.begin() + static_cast<std::ptrdiff_t>(slots[t]) * static_cast<std::ptrdiff_t>(kDim));
  expect(cache.download() == before, "append wrote other bytes than the tokens");
  flashmla_fault const found = fault.download()[0];
  expect(found.code == FLASHMLA_FAULT_SLOT && found.position == 3 && found.value == 130, "append recorded another fault");
}

// copy_pages for the first time in the process inside a capture: more caches and pairs than one launch takes. The caller's
// lists are gone when the graph is replayed.
void test_copy_pages_capture() {
  constexpr int64_t kLayers = 70, kPages = 700, kTokens = 2, kDim = 576, kPage = kTokens * kDim, kCopies = 330;
  std::vector<uint16_t> before(kLayers * kPages * kPage);
  for (size_t i = 0; i < before.size(); ++i) before[i] = static_cast<uint16_t>(i * 2654435761U >> 13);
  std::vector<uint16_t> after = before;
  DeviceArray<uint16_t> caches(before);
  std::vector<flashmla_view> views;
  for (int64_t layer = 0; layer < kLayers; ++layer)
    views.push_back(conformance::make_view(caches.get() + layer * kPages * kPage, FLASHMLA_BF16, {FLASHMLA_CUDA, 0},
                                           {kPages, kTokens, kDim}, {kPage, kDim, 1}));
  std::vector<flashmla_page_copy> copies = {{-1, -1}};
  for (int32_t i = 0; i < kCopies; ++i) {
    copies.push_back({i % 200, 350 + i});
    for (int64_t layer = 0; layer < kLayers; ++layer)
      std::copy_n(before.begin() + (layer * kPages + i % 200) * kPage, kPage, after.begin() + (layer * kPages + 350 + i) * kPage);
  }
  Stream stream;
  synchronize(nullptr);
  Graph graph;
  graph.capture(stream.get, [&] {
    flashmla_copy_pages_args args{};
    args.struct_size = sizeof args;
    args.caches = views.data(), args.num_caches = kLayers;
    args.copies = copies.data(), args.num_copies = static_cast<int64_t>(copies.size());
    if (flashmla_copy_pages(&args, stream.get) != FLASHMLA_OK) throw std::runtime_error(flashmla_last_error());
  });
  views.assign(views.size(), {});
  copies.assign(copies.size(), {-7, -7});
  expect(caches.download() == before, "copy_pages copied while it was captured");
  for (int i = 0; i < 2; ++i) {
    graph.replay(stream.get);
    synchronize(stream.get);
    expect(caches.download() == after, "copy_pages: replay " + std::to_string(i) + " left other bytes");
    caches.upload(before);
    synchronize(nullptr);
  }
}

// Merge for the first time in the process inside a capture: equal weights, an empty part full of NaN, and all empty.
void test_merge_capture() {
  constexpr size_t kParts = 3, kRows = 2, kDim = 512;
  float const infinity = std::numeric_limits<float>::infinity();
  std::vector<float> partial(kParts * kRows * kDim, std::numeric_limits<float>::quiet_NaN());
  std::fill_n(partial.begin(), kDim, 1.0F);                     // part 0 of row 0
  std::fill_n(partial.begin() + 2 * kRows * kDim, kDim, 4.0F);  // part 2 of row 0
  std::vector<float> const partial_lse = {5, infinity, -infinity, -infinity, 5, infinity};
  DeviceArray<float> values(partial), lses(partial_lse), out(kRows * kDim), lse(kRows);
  core::MergeCall call;
  call.num_parts = kParts, call.tokens = kRows, call.heads = 1, call.v_dim = kDim;
  call.out_dtype = FLASHMLA_FP32;
  call.empty_row = FLASHMLA_EMPTY_LSE_MINUS_INF;
  call.partial_out = values.get();
  call.partial_out_stride[0] = kRows * kDim, call.partial_out_stride[1] = kDim, call.partial_out_stride[2] = kDim;
  call.partial_lse = lses.get();
  call.partial_lse_stride[0] = kRows, call.partial_lse_stride[1] = 1, call.partial_lse_stride[2] = 1;
  call.out = out.get();
  call.out_stride[0] = kDim, call.out_stride[1] = kDim;
  call.lse = lse.get();
  call.lse_stride[0] = 1, call.lse_stride[1] = 1;
  call.device = {FLASHMLA_CUDA, 0};
  Stream stream;
  synchronize(nullptr);
  Graph graph;
  graph.capture(stream.get, [&] { cuda::make_backend()->merge(call, stream.get); });
  graph.replay(stream.get);
  synchronize(stream.get);
  std::vector<float> const got = out.download(), got_lse = lse.download();
  for (size_t d = 0; d < kDim; ++d) expect(std::fabs(got[d] - 2.5F) < 1e-5F && got[kDim + d] == 0, "merge: column " + std::to_string(d));
  expect(std::fabs(got_lse[0] - (5 + std::log(2.0F))) < 1e-5F && got_lse[1] == -infinity, "merge: lse");
}

struct Test {
  char const* name;
  std::function<void()> body;
};

int run_tests(int num_schedules) {
  std::vector<Test> const tests = {
      {"capture as the first call", [] { test_capture(mixed_case(7, 16, 1), 9000, false); }},
      {"capture, 128 heads", [] { test_capture(mixed_case(3, 128, 1), 5000, false); }},
      {"capture, FP16, 3 query tokens", [] { test_capture(mixed_case(33, 20, 3), 700, true); }},
      {"capture, batch 1", [] { test_capture(mixed_case(1, 16, 1), 20000, false); }},
      {"capture, 128 heads x 4 query tokens", [] { test_capture(mixed_case(2, 128, 4), 3000, false); }},
      {"capture, 32 heads", [] { test_capture(mixed_case(2, 32, 1), 1500, false); }},
      {"capture, 9 heads x 3 query tokens", [] { test_capture(mixed_case(7, 9, 3), 3700, false); }},
      {"stale schedule, 32 heads", [] { test_stale_schedule(mixed_case(8, 32, 1), 4000); }},
      {"stale schedule, 16 heads", [] { test_stale_schedule(mixed_case(9, 16, 1), 6000); }},
      {"stale schedule, 128 heads x 2 query tokens", [] { test_stale_schedule(mixed_case(5, 128, 2), 3000); }},
      {"shared schedule, 16 heads", [] { test_shared_schedule(mixed_case(5, 16, 1), 4000); }},
      {"shared schedule, 128 heads", [] { test_shared_schedule(mixed_case(6, 128, 1), 4000); }},
      {"one plan, two streams, 16 heads", [] { test_one_plan_two_streams(mixed_case(7, 16, 1), 5000); }},
      {"one plan, two streams, 128 heads x 2 query tokens", [] { test_one_plan_two_streams(mixed_case(6, 128, 2), 3000); }},
      {"few multiprocessors, two parts", [] { test_few_processors(mixed_case(60, 16, 1), 500); }},
      {"few multiprocessors, halves exchanged, 128 heads", [] { test_few_processors(mixed_case(33, 128, 1), 700); }},
      {"few multiprocessors, halves exchanged, 128 heads x 4 query tokens", [] { test_few_processors(mixed_case(8, 128, 4), 300); }},
      {"few multiprocessors, 16 parts", [] { test_few_processors(mixed_case(1, 16, 1), 1000); }},
      {"few multiprocessors, 8 parts, 128 heads", [] { test_few_processors(mixed_case(8, 128, 1), 600); }},
      {"few multiprocessors, 3 parts of few rows", [] { test_few_processors(mixed_case(44, 16, 1), 192); }},
      {"few multiprocessors, 32 rows as two row tiles", [] { test_few_processors(mixed_case(1, 32, 1), 1000); }},
      {"few multiprocessors, 3 query tokens of 10 heads, 2 row tiles", [] { test_few_processors(mixed_case(8, 10, 3), 2100); }},
      {"few multiprocessors, ragged, few rows", [] { test_few_processors(mixed_case(7, 16, 1), 2500, true); }},
      {"few multiprocessors, ragged, 32 heads", [] { test_few_processors(mixed_case(9, 32, 1), 1500, true); }},
      {"few multiprocessors, ragged, 128 heads", [] { test_few_processors(mixed_case(5, 128, 1), 2500, true); }},
      {"few multiprocessors, items cut by cost", [] { test_few_processors(mixed_case(100, 16, 1), 3000); }},
      {"schedule mismatch", [] { test_mismatch(mixed_case(4, 64, 1), 1000); }},
      {"append, captured at once", test_append_capture},
      {"merge, captured at once", test_merge_capture},
      {"copy_pages, captured at once", test_copy_pages_capture},
      {"describe", [] { test_describe(mixed_case(2, 128, 1)); }},
      {"schedules equal the host's", [num_schedules] { check_device_planner(num_schedules); }},
  };
  int failures = 0;
  for (Test const& test : tests) {
    try {
      test.body();
      std::printf("ok      %s\n", test.name);
    } catch (std::exception const& error) {
      ++failures;
      std::printf("FAILED  %s: %s\n", test.name, error.what());
    }
    std::fflush(stdout);
  }
  std::printf("gpu_capture: %zu tests, %d failed\n", tests.size(), failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  int num_schedules = 2000;
  CLI::App app("Graph capture, shared schedules and the device planner, on a GPU.");
  app.add_option("--schedules", num_schedules, "random length vectors")->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  return flashmla::test::run_on_gpu("gpu_capture", [&] { return flashmla::test::run_tests(num_schedules); });
}
