// Which accesses does compute-sanitizer's racecheck follow? Small kernels with and without a barrier that they need.
//
//   gpu_racecheck [--list] [NAME...]      alone: the kernels that are right give the right values
//   tests/gpu/racecheck_table.py FOLDER   each kernel under racecheck, as a table
//
// A planted fault that racecheck does not report is one that it can't find in our kernels either: there the stress run is
// the test. A report about a kernel that is right is one to expect, and to ignore, in ours.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "gpu/gpu_support.hpp"
#include "gpu/race_cases.hpp"

namespace flashmla::test {
namespace {

using Encoder = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, cuuint64_t const*, cuuint64_t const*, cuuint32_t const*,
                             cuuint32_t const*, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

constexpr int64_t kRows = 64, kColumns = 64;

CUtensorMap map_of(void* tile) {
  void* symbol = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
#if CUDART_VERSION >= 12050
  check_call(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &symbol, 12000, cudaEnableDefault, &result),
             "cudaGetDriverEntryPoint");
#else
  check_call(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &symbol, cudaEnableDefault, &result), "cudaGetDriverEntryPoint");
#endif
  if (result != cudaDriverEntryPointSuccess) throw std::runtime_error("no cuTensorMapEncodeTiled in the driver");
  constexpr cuuint64_t kTileBytes = kRows * kColumns * 2;
  cuuint64_t const sizes[5] = {kColumns, kRows, 1, 1, 1}, strides[4] = {kColumns * 2, kTileBytes, kTileBytes, kTileBytes};
  cuuint32_t const box[5] = {kColumns, kRows, 1, 1, 1}, steps[5] = {1, 1, 1, 1, 1};
  CUtensorMap map{};
  CUresult const status = reinterpret_cast<Encoder>(symbol)(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 5, tile, sizes, strides, box, steps,
                                                            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) throw std::runtime_error("cuTensorMapEncodeTiled answers " + std::to_string(status));
  return map;
}

/// Runs one case; what a right kernel gets wrong, else empty. A planted one may read anything.
std::string run_case(RaceCase const& c) {
  DeviceArray<uint16_t> const tile(std::vector<uint16_t>(kRows * kColumns, 0x3f80));
  DeviceArray<uint32_t> const out(std::vector<uint32_t>(size_t{kRaceOutputs}, 0));
  c.launch({map_of(tile.get()), out.get(), nullptr});
  check_call(cudaGetLastError(), c.name);
  check_call(cudaDeviceSynchronize(), c.name);
  std::vector<uint32_t> const got = out.download();
  auto const wrong = std::count_if(got.begin(), got.begin() + c.num_outputs, [&](uint32_t word) { return word != c.expected; });
  if (wrong == 0 || c.planted != nullptr) return "";
  return std::to_string(wrong) + " of " + std::to_string(c.num_outputs) + " outputs are wrong";
}

int run_cases(std::vector<std::string> const& names) {
  int failures = 0, ran = 0;
  for (RaceCase const& c : race_cases()) {
    if (!names.empty() && std::find(names.begin(), names.end(), c.name) == names.end()) continue;
    std::string const wrong = run_case(c);
    ++ran;
    failures += wrong.empty() ? 0 : 1;
    std::printf("%-8s%s\n", wrong.empty() ? "ok" : "FAILED", (c.name + (wrong.empty() ? "" : ": " + wrong)).c_str());
  }
  std::printf("gpu_racecheck: %d kernels, %d failed\n", ran, failures);
  return failures == 0 && ran > 0 ? 0 : 1;
}

/// A line for each case: name, what is missing or "-", what it does; separated by tabs.
int list_cases() {
  for (RaceCase const& c : race_cases()) std::printf("%s\t%s\t%s\n", c.name, c.planted == nullptr ? "-" : c.planted, c.what);
  return 0;
}

}  // namespace
}  // namespace flashmla::test

int main(int argc, char** argv) {
  std::vector<std::string> names;
  bool is_list = false;
  CLI::App app("Small kernels with and without a barrier, for compute-sanitizer's racecheck.");
  app.add_flag("--list", is_list, "list the kernels");
  app.add_option("names", names, "run these only");
  CLI11_PARSE(app, argc, argv);
  if (is_list) return flashmla::test::list_cases();
  return flashmla::test::run_on_gpu("gpu_racecheck", [&] { return flashmla::test::run_cases(names); });
}
