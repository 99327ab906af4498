// A program of somebody who uses Strata as a package.
#include <strata/strata.hpp>

#include <cstdio>

int main() {
  const auto image = strata::Image<3>::full(1, 4, 4, 0.5f);
  std::printf("Strata %s, %s: %lld values\n", STRATA_VERSION, STRATA_ISA, static_cast<long long>(image.size()));
  return image.size() == 48 ? 0 : 1;
}
