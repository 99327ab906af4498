// The inline namespace every declaration lives in. Its name carries the version and the instruction set, so that two
// translation units compiled with different flags never share an inline function.
//
//     namespace strata::inline STRATA_ABI { ... }
#pragma once

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define STRATA_ISA "avx512"
#if defined(__AVX512BF16__)
#define STRATA_ABI v0_1_avx512_bf16
#else
#define STRATA_ABI v0_1_avx512
#endif
#elif defined(__AVX2__) && defined(__FMA__)
#define STRATA_ISA "avx2"
#define STRATA_ABI v0_1_avx2
#else
#define STRATA_ISA "baseline"
#define STRATA_ABI v0_1_baseline
#endif

#if !defined(__cplusplus) || __cplusplus < 202002L
#error "strata needs C++20: compile with -std=c++20 (g++ 12 or newer, clang 16 or newer)"
#endif
