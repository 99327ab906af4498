// Weights into panels: columns of a matrix that lies in memory in either order.
#pragma once

#include <cstdint>

#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::detail {

/// v[i][j] becomes v[j][i], for as many vectors as they have elements.
template <class V>
[[gnu::noinline]] void transpose(V* v) {
  constexpr int lanes = simd::lanes<V>, half = lanes / 2;
  const auto shuffle_all = [&](const V* from, V* to) STRATA_INLINED {  // as cards are: one half between the other
    simd::unroll<half>([&](auto i) STRATA_INLINED {
      const auto [a, b] = simd::interleaved<V>(from[i], from[half + i]);
      to[2 * i] = a, to[2 * i + 1] = b;
    });
  };
  V other[lanes];
  for (int rounds = lanes; rounds > 1; rounds /= 4) {
    shuffle_all(v, other);
    if (rounds == 2)
      simd::unroll<lanes>([&](auto i) STRATA_INLINED { v[i] = other[i]; });
    else
      shuffle_all(other, v);
  }
}

/// Writes rows k in [0, depth) of up to lanes columns: to[k * width + j] = first[k * k_distance + j * column_distance]
/// for j < count, and 0 up to a whole vector.
template <class V>
[[gnu::noinline]] void pack_columns(const simd::Lane<V>* first, std::int64_t k_distance, std::int64_t column_distance,
                                    std::int64_t depth, std::int64_t count, simd::Lane<V>* to, std::int64_t width) {
  constexpr std::int64_t lanes = simd::lanes<V>;
  std::int64_t k = 0;
  if (count == lanes && column_distance == 1)
    for (; k < depth; ++k) simd::store(to + k * width, simd::load<V>(first + k * k_distance));
  if (count == lanes && k_distance == 1)
    for (; k + lanes <= depth; k += lanes) {
      V block[lanes];
      for (std::int64_t j = 0; j < lanes; ++j) block[j] = simd::load<V>(first + k + j * column_distance);
      transpose(block);
      for (std::int64_t j = 0; j < lanes; ++j) simd::store(to + (k + j) * width, block[j]);
    }
  for (; k < depth; ++k)
    for (std::int64_t j = 0; j < lanes; ++j)
      to[k * width + j] = j < count ? first[k * k_distance + j * column_distance] : simd::Lane<V>(0);
}

}}}  // namespace strata::STRATA_ABI::cpu::detail
