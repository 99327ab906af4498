// expect: strata reports errors by exceptions: compile without -fno-exceptions
// fail-flags: -fno-exceptions
#include "strata/core/error.hpp"

int main() { return strata::concat("a", 1).size() == 2 ? 0 : 1; }
