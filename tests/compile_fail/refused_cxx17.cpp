// expect: strata needs C++20: compile with -std=c++20
// fail-flags: -std=c++17
// fail-flags: -std=gnu++17
#include "strata/core/error.hpp"

int main() { return strata::concat("a", 1).size() == 2 ? 0 : 1; }
