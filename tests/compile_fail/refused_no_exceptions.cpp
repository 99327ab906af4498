// expect: strata reports errors by exceptions: compile without -fno-exceptions
// fail-flags: -fno-exceptions
#include "strata/core/config.hpp"

int main() {}
