// The inline namespace every declaration lives in. Its name carries the version and the instruction set, so that two
// translation units compiled with different flags never share an inline function.
//
//     namespace strata::inline STRATA_ABI { ... }
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#if defined(__AVX512BF16__)
#define STRATA_ISA "avx512_bf16"
#define STRATA_ABI v0_1_avx512_bf16
#else
#define STRATA_ISA "avx512"
#define STRATA_ABI v0_1_avx512
#endif
#elif defined(__AVX2__) && defined(__FMA__)
#define STRATA_ISA "avx2"
#define STRATA_ABI v0_1_avx2
#else
#define STRATA_ISA "baseline"
#define STRATA_ABI v0_1_baseline
#endif

// What is no template is inline too, unless STRATA_COMPILED says that compiled.cpp is compiled with the program (the
// target strata::compiled): headers then only declare it, and are quicker to read. It is defined in the files
// *_impl.hpp.
#ifdef STRATA_COMPILED
#define STRATA_INLINE
#else
#define STRATA_INLINE inline
#endif

// What cannot work is refused in one sentence. Where nothing after it could compile either, the sentence is the name of
// a file that is not there, which ends the compilation; an #error would be followed by hundreds of others.
#if defined(_MSC_VER) && !defined(__clang__)
#define STRATA_REFUSED "strata needs g++ 12 or newer or clang 16 or newer: kernels are written with their vector types"
#elif !defined(__cplusplus) || __cplusplus < 202002L
#define STRATA_REFUSED "strata needs C++20: compile with -std=c++20 (g++ 12 or newer, clang 16 or newer)"
#elif !defined(__cpp_exceptions) && !defined(__CUDA_ARCH__)
#define STRATA_REFUSED "strata reports errors by exceptions: compile without -fno-exceptions"
#elif __SIZEOF_POINTER__ < 8
#define STRATA_REFUSED "strata needs 64-bit addresses: compile without -m32 or -mx32, for x86-64 or AArch64"
#endif
#ifdef STRATA_REFUSED
#include STRATA_REFUSED
#endif

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || defined(__ASSOCIATIVE_MATH__)
#error \
    "strata does not work with -ffast-math, -Ofast, -ffinite-math-only or -fassociative-math: checks for NaN and the rounding\
 of random numbers would be optimised away. Compile with -O3: the kernels' loops are vectors without it"
#endif
