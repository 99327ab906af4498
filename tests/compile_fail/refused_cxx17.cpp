// expect: strata needs C++20: compile with -std=c++20
// fail-flags: -std=c++17
// fail-flags: -std=gnu++17
#include "strata/core/config.hpp"

int main() {}
