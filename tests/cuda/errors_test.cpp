// CUDA statuses as the library's errors.
#include "cuda/errors.hpp"

#include <gtest/gtest.h>

namespace flashmla::cuda {
namespace {

TEST(Errors, statusCodes) {
  EXPECT_EQ(status_of(cudaSuccess), FLASHMLA_OK);
  EXPECT_EQ(status_of(cudaErrorMemoryAllocation), FLASHMLA_OUT_OF_MEMORY);
  EXPECT_EQ(status_of(cudaErrorNoDevice), FLASHMLA_UNSUPPORTED);
  EXPECT_EQ(status_of(cudaErrorInsufficientDriver), FLASHMLA_UNSUPPORTED);
  EXPECT_EQ(status_of(cudaErrorNoKernelImageForDevice), FLASHMLA_UNSUPPORTED);
  EXPECT_EQ(status_of(cudaErrorLaunchFailure), FLASHMLA_DEVICE_ERROR);
}

TEST(Errors, grammar) {
  EXPECT_NO_THROW(check_cuda(cudaSuccess, "decode", "cudaMemsetAsync"));
  try {
    check_cuda(cudaErrorInvalidValue, "decode", "cudaMemsetAsync");
    ADD_FAILURE() << "no error";
  } catch (core::Error const& error) {
    EXPECT_EQ(error.status(), FLASHMLA_DEVICE_ERROR);
    EXPECT_STREQ(error.what(), "decode: cudaMemsetAsync: got cudaErrorInvalidValue, expected cudaSuccess (invalid argument)");
  }
}

}  // namespace
}  // namespace flashmla::cuda
