#include "conformance/conformance.hpp"

#include <gtest/gtest.h>

#include <new>

#include "conformance/mirrored_memory.hpp"

namespace flashmla::conformance {
namespace {

TEST(Conformance, EveryNthCheckIsRun) {
  Options options;
  options.name_filter = "merge.";
  options.target.num_threads = 1;
  int64_t const all = run(options).passed;
  options.every = 3;
  EXPECT_EQ(run(options).passed, (all + 2) / 3);
}

TEST(Conformance, FiltersByNameAndType) {
  Options options;
  options.name_filter = "decode.math.sink";
  int64_t last = 0;
  options.on_progress = [&](Progress const& progress) {
    EXPECT_EQ(progress.done, ++last);
    EXPECT_EQ(progress.total, 12);
    EXPECT_EQ(progress.name.find("decode.math.sink"), 0u);
  };
  EXPECT_EQ(run(options).passed, 12);
  EXPECT_EQ(last, 12);
  options.on_progress = nullptr;
  options.dtype = FLASHMLA_FP16;
  EXPECT_EQ(run(options).passed, 4);
  options.name_filter = "no such name";
  Report const nothing = run(options);
  EXPECT_EQ(nothing.passed + nothing.failed + nothing.skipped, 0);
}

TEST(Conformance, EveryOperationHasChecks) {
  for (char const* const operation : {"decode.output.", "merge.", "append.", "copy_pages.", "page_pool."}) {
    Options options;
    options.name_filter = operation;
    options.dtype = operation == std::string("page_pool.") ? FLASHMLA_DTYPE_NONE : FLASHMLA_BF16;
    Report const report = run(options);
    EXPECT_GT(report.passed, 2) << operation;
    EXPECT_EQ(report.failed, 0) << report.text();
  }
}

TEST(Conformance, CountsWhatTheLibraryDoesNotServe) {
  Options options;
  options.name_filter = "math.plain";
#if defined(__aarch64__)
  options.target.isa = FLASHMLA_ISA_AVX2;
#else
  options.target.isa = FLASHMLA_ISA_NEON;
#endif
  Report const report = run(options);
  EXPECT_EQ(report.skipped, 3);
  EXPECT_EQ(report.skips.size(), 3u);
  EXPECT_NE(report.text().find("skipped 3: plan_create: isa"), std::string::npos) << report.text();
}

TEST(Conformance, ReportsFailuresAndStopsOnRequest) {
  test::MirroredMemory memory;
  memory.tamper = [](unsigned char* host, size_t, int) { host[0] = 0; };  // a guard of whatever comes out
  Options options;
  options.memory = &memory;
  options.name_filter = "decode.math.sink";
  Report const all = run(options);
  EXPECT_EQ(all.failed, 12);
  ASSERT_EQ(all.failures.size(), 12u);
  EXPECT_NE(all.text().find("FAILED " + all.failures[0].name + ": written outside the views"), std::string::npos) << all.text();
  options.stop_on_failure = true;
  EXPECT_EQ(run(options).failed, 1);
}

TEST(Conformance, AnExceptionIsAFailureOfItsCheck) {
  class NoMemory final : public DeviceMemory {
    [[nodiscard]] flashmla_device device() const override { return {FLASHMLA_CPU, 0}; }
    [[nodiscard]] flashmla_stream stream() const override { return nullptr; }
    [[nodiscard]] bool host_accessible() const override { return true; }
    [[nodiscard]] void* allocate(size_t) override { throw std::bad_alloc(); }
    void release(void*) noexcept override {}
    void copy_in(void*, void const*, size_t) override {}
    void copy_out(void*, void const*, size_t) override {}
  } memory;
  Options options;
  options.memory = &memory;
  options.name_filter = "append.plain";
  Report const report = run(options);
  EXPECT_EQ(report.failed, 5);  // a check for every cache format that is built
  EXPECT_NE(report.text().find("exception"), std::string::npos);
}

}  // namespace
}  // namespace flashmla::conformance
