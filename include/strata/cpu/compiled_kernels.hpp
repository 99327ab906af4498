// The CPU's kernels, all of them. A program compiles those that it uses. Where STRATA_COMPILED_KERNELS is defined it
// leaves those of float32 to kernels.cpp, which a project then compiles once instead of in each of its programs, and
// again whenever one changes:
//
//     target_link_libraries(program PRIVATE strata::strata strata::kernels)               # CMake does both
//     g++ -std=c++20 -O3 -march=native -I include -c include/strata/cpu/kernels.cpp       # by hand; both with these flags
//     g++ -std=c++20 -O3 -march=native -I include -DSTRATA_COMPILED_KERNELS program.cpp kernels.o -pthread
//
// The target strata::compiled has these and all else that can be compiled once: see compiled.cpp. Such a program
// carries all kernels, those of training too. One that is to be shipped does better without. Programs that check
// gradients do the same with those of float64: double_kernels.cpp, STRATA_COMPILED_DOUBLE_KERNELS. Groups with 2, 4 or
// 8 channels (ResNeXt's) have kernels of their own, which take longer to compile than all others together: a program
// with such a layer compiles the one it has, and several programs share grouped_kernels.cpp with
// STRATA_COMPILED_GROUPED_KERNELS.
#pragma once

#include "strata/cpu/batch_norm.hpp"
#include "strata/cpu/conv2d.hpp"
#include "strata/cpu/conv2d_general.hpp"
#include "strata/cpu/group_norm.hpp"
#include "strata/cpu/layer_norm.hpp"
#include "strata/cpu/optimizer.hpp"
#include "strata/cpu/pixel_shuffle.hpp"
#include "strata/cpu/pointwise.hpp"
#include "strata/cpu/pooling.hpp"
#include "strata/cpu/upsample.hpp"

#ifdef STRATA_COMPILED_KERNELS
#define STRATA_KERNEL extern template
#define STRATA_T float
#include "strata/cpu/compiled_kernels.inc"
#undef STRATA_T
#include "strata/cpu/compiled_float_kernels.inc"
#ifdef STRATA_COMPILED_DOUBLE_KERNELS
#define STRATA_T double
#include "strata/cpu/compiled_kernels.inc"
#undef STRATA_T
#endif
#ifdef STRATA_COMPILED_GROUPED_KERNELS
#define STRATA_CHANNELS 2
#include "strata/cpu/compiled_grouped_kernels.inc"
#undef STRATA_CHANNELS
#define STRATA_CHANNELS 4
#include "strata/cpu/compiled_grouped_kernels.inc"
#undef STRATA_CHANNELS
#define STRATA_CHANNELS 8
#include "strata/cpu/compiled_grouped_kernels.inc"
#undef STRATA_CHANNELS
#endif
#undef STRATA_KERNEL
#endif
