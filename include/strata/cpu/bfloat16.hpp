// Factors of 16 bits: bfloat16 is a float32 without its last 16 bits of fraction, rounded to nearest, ties to even. Two
// products of them are added to a float32 in one instruction where there is AVX512-BF16, so that products take half the
// time; elsewhere the same is computed in float32, which takes more. Sums stay float32.
//
//     store_factors(v, value);                                 // a vector of floats as Bfloat16
//     multiply_pairs<6, 4>(depth, rows, panel, result);        // panel: of store_group
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

#if defined(__AVX512BF16__) && defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && \
    defined(__AVX512VL__)
#define STRATA_BFLOAT16_INSTRUCTIONS 1
#else
#define STRATA_BFLOAT16_INSTRUCTIONS 0
#endif
/// Whether bfloat16 is faster than float32 here.
inline constexpr bool bfloat16_instructions = STRATA_BFLOAT16_INSTRUCTIONS != 0;

struct Bfloat16 {
  std::uint16_t bits;
};

/// How many factors of a product's depth are multiplied by one instruction: they lie side by side in both matrices.
template <class Factor>
inline constexpr std::int64_t factor_group = 1;
template <>
inline constexpr std::int64_t factor_group<Bfloat16> = 2;

/// `depth` rounded up to whole groups; what is added are zeros.
template <class Factor>
constexpr std::int64_t grouped(std::int64_t depth) {
  return (depth + factor_group<Factor> - 1) / factor_group<Factor> * factor_group<Factor>;
}

namespace detail {

using Words = simd::Vector<std::uint32_t>;

/// Rounded values in the upper halves of words, zeros in the lower ones. NaN stays NaN.
[[gnu::always_inline]] inline Words rounded_to_bfloat16(simd::Vector<float> value) {
  const Words bits = std::bit_cast<Words>(value);
  const Words rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  return (value == value ? rounded : bits | 0x400000) & 0xFFFF0000;
}

/// sum + low halves of a * low halves of b + high halves of a * high halves of b.
[[gnu::always_inline]] inline simd::Vector<float> add_pair_products(simd::Vector<float> sum, Words a, Words b) {
#if STRATA_BFLOAT16_INSTRUCTIONS
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
#else
  using V = simd::Vector<float>;
  sum += std::bit_cast<V>(a << 16) * std::bit_cast<V>(b << 16);
  return sum + std::bit_cast<V>(a & 0xFFFF0000) * std::bit_cast<V>(b & 0xFFFF0000);
#endif
}

}  // namespace detail

[[gnu::always_inline]] inline void store_factors(float* to, simd::Vector<float> value) { simd::store(to, value); }
[[gnu::always_inline]] inline void store_factors(Bfloat16* to, simd::Vector<float> value) {
#if STRATA_BFLOAT16_INSTRUCTIONS
  typedef std::uint16_t Half __attribute__((vector_size(sizeof(value) / 2)));
  Half half;
  asm("vcvtneps2bf16 %1, %0" : "=v"(half) : "v"(value));
#else
  typedef std::uint16_t Half __attribute__((vector_size(sizeof(value) / 2)));
  const Half half = __builtin_convertvector(detail::rounded_to_bfloat16(value) >> 16, Half);
#endif
  std::memcpy(to, &half, sizeof half);
}

/// One row of a panel: a group of factors for each column, of vectors that lie `distance` apart.
[[gnu::always_inline]] inline void store_group(float* to, const simd::Vector<float>* values, std::int64_t) {
  simd::store(to, *values);
}
[[gnu::always_inline]] inline void store_group(Bfloat16* to, const simd::Vector<float>* values, std::int64_t distance) {
  const detail::Words pair =
      detail::rounded_to_bfloat16(values[0]) >> 16 | detail::rounded_to_bfloat16(values[distance]);
  std::memcpy(to, &pair, sizeof pair);
}

/// As multiply() of panel_product.hpp, with pairs of factors: sum[r][j] = sum over k < depth of row(r)[k] *
/// panel[k][j], where depth is even and rows k and k + 1 of the panel lie between each other.
template <int Rows, int Vectors, class Row, class Result>
[[gnu::always_inline]] inline void multiply_pairs(std::int64_t depth, Row&& row, const Bfloat16* panel,
                                                  Result&& result) {
  using V = simd::Vector<float>;
  using detail::Words;
  V sum[Rows][Vectors] = {};
  const Bfloat16* a[Rows];
  simd::unroll<Rows>([&](auto r) STRATA_INLINED { a[r] = row(int(r)); });
#pragma GCC unroll 2
  for (std::int64_t k = 0; k < depth; k += 2, panel += 2 * Vectors * simd::lanes<V>) {
    Words b[Vectors];
    simd::unroll<Vectors>([&](auto j)
                              STRATA_INLINED { std::memcpy(&b[j], panel + 2 * j * simd::lanes<V>, sizeof(Words)); });
    simd::unroll<Rows>([&](auto r) STRATA_INLINED {
      std::uint32_t pair;
      std::memcpy(&pair, a[r] + k, sizeof pair);
      const Words x = Words{} + pair;
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] = detail::add_pair_products(sum[r][j], x, b[j]); });
    });
  }
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED { result(int(r), int(j), sum[r][j]); });
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
