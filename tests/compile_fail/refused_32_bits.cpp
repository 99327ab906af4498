// expect: strata needs 64-bit addresses
// fail-flags: -m32
#include "strata/core/config.hpp"

int main() {}
