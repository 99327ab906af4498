// Compiles the CPU's kernels of float32 for programs that define STRATA_COMPILED_KERNELS: see compiled_kernels.hpp.
#include "strata/cpu/compiled_kernels.hpp"

#define STRATA_KERNEL template
#include "strata/cpu/compiled_kernels.inc"
