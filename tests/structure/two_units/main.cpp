// Units that all include strata/strata.hpp link into one program. Two are compiled alike and one for the baseline
// instruction set of the processor.
#include <cstdio>

#include "unit.hpp"

static int failures = 0;

static void check(bool good, const char* what) {
  if (good) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

int main() {
  const Unit a = first(), b = second(), c = baseline();
  std::printf("%s, %s and %s\n", a.instruction_set.c_str(), b.instruction_set.c_str(), c.instruction_set.c_str());
  check(a.result == 6 && b.result == 6 && c.result == 6, "each unit computes");
  check(a.instruction_set == b.instruction_set && a.pool == b.pool, "units compiled alike share one pool");
  check((a.instruction_set == c.instruction_set) == (a.pool == c.pool), "units compiled differently share no pool");
  check(first_misses().find("built without CUDA") != std::string::npos, "there is no CUDA code");
  baseline_registers_cuda();
  const std::string missing = first_misses();
  std::printf("%s\n", missing.c_str());
  check(a.instruction_set == c.instruction_set ||
            (missing.find("instruction set " + c.instruction_set + ",") != std::string::npos &&
             missing.find("compiled for " + a.instruction_set + ":") != std::string::npos),
        "CUDA code for another instruction set is told");
  return failures;
}
