// The main of every test program. Memory from the pool is filled with NaN, so that an element nobody writes shows.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "strata/tensor/storage.hpp"
#include "test_data.hpp"

int main(int argc, char** argv) {
  strata::cpu_pool().fill_with_nan(true);
  const int result = doctest::Context(argc, argv).run();
  if (result != 0 || strata_test::missing_data().empty()) return result;
  std::puts("SKIPPED, for want of data in the folder STRATA_TEST_DATA:");
  for (const auto& name : strata_test::missing_data()) std::printf("  %s\n", name.c_str());
  return strata_test::skipped;
}
