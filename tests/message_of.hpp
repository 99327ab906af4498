// The text of the error that a call throws.
//
//     CHECK(strata_test::message_of([&] { st::load_image<3>(path); }) == "...");
#pragma once

#include <string>

#include "strata/core/error.hpp"

namespace strata_test {

/// Empty when it throws none; other errors than Error's pass.
template <class Error = strata::Error>
std::string message_of(auto&& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace strata_test
