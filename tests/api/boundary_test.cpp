#include "api/boundary.hpp"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>

namespace flashmla::api {
namespace {

flashmla_status guarded_throw(auto error) {
  return guarded("test", [&] { throw error; });
}

TEST(Boundary, ExceptionsBecomeStatuses) {
  EXPECT_EQ(guarded_throw(core::Error(FLASHMLA_EXHAUSTED, "test: pages: got 2, expected 1")), FLASHMLA_EXHAUSTED);
  EXPECT_STREQ(flashmla_last_error(), "test: pages: got 2, expected 1");
  EXPECT_EQ(guarded_throw(std::bad_alloc()), FLASHMLA_OUT_OF_MEMORY);
  EXPECT_EQ(std::string(flashmla_last_error()).rfind("test: memory: got ", 0), 0u);
  EXPECT_EQ(guarded_throw(std::logic_error("a slip")), FLASHMLA_INTERNAL);
  EXPECT_NE(std::string(flashmla_last_error()).find("a slip"), std::string::npos);
  EXPECT_EQ(guarded_throw(7), FLASHMLA_INTERNAL);
  EXPECT_NE(std::string(flashmla_last_error()).find("unknown exception"), std::string::npos);
}

TEST(Boundary, ASuccessClearsTheError) {
  guarded_throw(std::bad_alloc());
  EXPECT_EQ(guarded("test", [] {}), FLASHMLA_OK);
  EXPECT_STREQ(flashmla_last_error(), "");
}

TEST(Boundary, ErrorsBelongToTheirThread) {
  guarded_throw(std::logic_error("mine"));
  std::thread([] {
    EXPECT_STREQ(flashmla_last_error(), "");
    guarded_throw(std::logic_error("theirs"));
  }).join();
  EXPECT_NE(std::string(flashmla_last_error()).find("mine"), std::string::npos);
}

TEST(Boundary, ALongMessageIsCutNotLost) {
  EXPECT_EQ(guarded_throw(core::Error(FLASHMLA_INVALID_ARGUMENT, "test: " + std::string(5000, 'x'))), FLASHMLA_INVALID_ARGUMENT);
  std::string const text = flashmla_last_error();
  EXPECT_EQ(text.substr(0, 8), "test: xx");
  EXPECT_GT(text.size(), 500u);
  EXPECT_LT(text.size(), 5000u);
}

TEST(Boundary, StatusesHaveNames) {
  EXPECT_STREQ(flashmla_status_name(FLASHMLA_OK), "FLASHMLA_OK");
  EXPECT_STREQ(flashmla_status_name(FLASHMLA_UNSUPPORTED), "FLASHMLA_UNSUPPORTED");
  EXPECT_STREQ(flashmla_status_name(FLASHMLA_INTERNAL), "FLASHMLA_INTERNAL");
  EXPECT_STREQ(flashmla_status_name(static_cast<flashmla_status>(99)), "unknown status");
}

}  // namespace
}  // namespace flashmla::api
