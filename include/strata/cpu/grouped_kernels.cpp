// Compiles the CPU's kernels of groups with 2, 4 and 8 channels for programs that define
// STRATA_COMPILED_GROUPED_KERNELS: see compiled_kernels.hpp.
#include "strata/cpu/compiled_kernels.hpp"

#define STRATA_KERNEL template
#define STRATA_CHANNELS 2
#include "strata/cpu/compiled_grouped_kernels.inc"
#undef STRATA_CHANNELS
#define STRATA_CHANNELS 4
#include "strata/cpu/compiled_grouped_kernels.inc"
#undef STRATA_CHANNELS
#define STRATA_CHANNELS 8
#include "strata/cpu/compiled_grouped_kernels.inc"
