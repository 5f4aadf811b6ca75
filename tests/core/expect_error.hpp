// Expects a core::Error of a given status whose text follows the grammar `operation: argument: got X, expected Y`.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/error.hpp"

namespace flashmla::core {

struct Complaint {
  flashmla_status status;
  std::string operation;
  std::string argument;
  std::string fragment;  // of the text
};

template <typename Body>
void expect_error(Complaint const& complaint, Body&& body) {
  try {
    body();
    ADD_FAILURE() << "no error, expected " << complaint.argument << ": " << complaint.fragment;
  } catch (Error const& error) {
    std::string const text = error.what();
    EXPECT_EQ(error.status(), complaint.status) << text;
    EXPECT_EQ(text.rfind(complaint.operation + ": " + complaint.argument + ": got ", 0), 0u) << text;
    size_t const got = text.find(": got "), expected = text.find(", expected ");
    EXPECT_TRUE(got != std::string::npos && expected != std::string::npos && got + 6 < expected && expected + 11 < text.size()) << text;
    EXPECT_NE(text.find(complaint.fragment), std::string::npos) << text << "\nlacks: " << complaint.fragment;
  }
}

}  // namespace flashmla::core
