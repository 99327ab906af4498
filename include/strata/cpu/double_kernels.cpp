// Compiles the CPU's kernels of float64 for programs that define STRATA_COMPILED_DOUBLE_KERNELS: see
// compiled_kernels.hpp.
#include "strata/cpu/compiled_kernels.hpp"

#define STRATA_KERNEL template
#define STRATA_T double
#include "strata/cpu/compiled_kernels.inc"
