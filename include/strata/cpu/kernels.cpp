// Compiles the CPU's kernels of float32 for programs that define STRATA_COMPILED_KERNELS: see compiled_kernels.hpp.
#include "strata/cpu/compiled_kernels.hpp"

#define STRATA_KERNEL template
#define STRATA_T float
#include "strata/cpu/compiled_kernels.inc"
#include "strata/cpu/compiled_float_kernels.inc"
