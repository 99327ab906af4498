// The main of the tests that run on an NVIDIA device. Where there is none, or the libraries that a program needs
// (STRATA_TEST_NEEDS_LIBRARIES) are missing, it says so and ends with the code that CTest shows as skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <string>

#include "strata/cuda.hpp"
#include "strata/tensor/storage.hpp"
#include "test_data.hpp"

namespace {

std::string missing() {
  std::string reason = strata::cuda_missing();
#if defined(STRATA_TEST_NEEDS_LIBRARIES)
  if (reason.empty()) try {
      strata::accelerator(strata::Device::cuda()).set_engine({.engine = strata::Engine::library});
    } catch (const strata::Error& error) {
      reason = error.what();
    }
#endif
  return reason;
}

}  // namespace

int main(int argc, char** argv) {
  if (const std::string reason = missing(); !reason.empty()) {
    std::printf("SKIPPED, no test was run: %s\n", reason.c_str());
    return strata_test::skipped;
  }
  std::printf("on %s\n", strata::accelerator(strata::Device::cuda()).name().c_str());
  strata::cpu_pool().fill_with_nan(true);
  return doctest::Context(argc, argv).run();
}
