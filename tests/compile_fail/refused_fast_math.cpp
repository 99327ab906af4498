// expect: does not work with -ffast-math, -Ofast, -ffinite-math-only or -fassociative-math
// fail-flags: -ffast-math
// fail-flags: -Ofast
// fail-flags: -O3 -ffinite-math-only
// fail-flags[gcc]: -funsafe-math-optimizations
// fail-flags[gcc]: -fassociative-math -fno-signed-zeros -fno-trapping-math
#include "strata/tensor/device.hpp"

int main() { return strata::Device::cpu() == strata::Device::cpu() ? 0 : 1; }
