// expect: does not work with -ffast-math, -Ofast, -ffinite-math-only or -fassociative-math
// fail-flags: -ffast-math
// fail-flags: -Ofast
// fail-flags: -O3 -ffinite-math-only
// fail-flags[gcc]: -funsafe-math-optimizations
// fail-flags[gcc]: -fassociative-math -fno-signed-zeros -fno-trapping-math
#include "strata/core/config.hpp"

int main() {}
