// Winograd's transform of the weights of a convolution, into panels for the products.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/bfloat16.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/pack_columns.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_plan.hpp"
#include "strata/cpu/winograd_tiles.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

/// Filters of one vector of columns from `column` on, `count` of its lanes, and rows (part, channel) [first, first +
/// rows): g[row][tap][lane]. Rows beyond the last part are 0.
inline void gather_filters(const WeightLayout<float>& weight, const FilterParts& parts, std::int64_t channels,
                           std::int64_t column, std::int64_t count, std::int64_t first, std::int64_t rows, float* g) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, row = 9 * lanes;
  for (std::int64_t r = 0, same; r < rows; r += same) {
    const std::int64_t part = (first + r) / channels, channel = (first + r) % channels;
    same = std::min(rows - r, channels - channel);
    for (std::int64_t t = 0; t < 9; ++t) {
      const std::int64_t tap = part < parts.count ? parts.tap(part, t) : -1;
      float* const to = g + r * row + t * lanes;
      if (tap < 0) {
        for (std::int64_t i = 0; i < same; ++i) std::fill_n(to + i * row, lanes, 0.0f);
        continue;
      }
      const float* const from = weight.first + channel * weight.k + column * weight.column + tap * weight.tap;
      cpu::detail::pack_columns<V>(from, weight.k, weight.column, same, count, to, row);
      // The next columns are fetched while these are transformed.
      const auto fetch = [&](std::int64_t next, std::int64_t i) {
        cpu::detail::prefetch(reinterpret_cast<std::uintptr_t>(from) +
                              std::uintptr_t((lanes + next) * weight.column + i * weight.k) * sizeof(float));
      };
      if (weight.column == 1)
        for (std::int64_t i = 0; i < same; ++i) fetch(0, i);
      else
        for (std::int64_t next = 0; next < lanes; ++next)
          for (std::int64_t i = 0; i < same; i += 16) fetch(next, i);
    }
  }
}

/// u[plane] = (G g G^T)[plane] for one vector of columns from `column` on and rows (part, channel) [first, end) of each
/// plane, which lie `width` apart, in groups of factors that are multiplied together.
template <class Factor>
void transform_weight_rows(const WeightLayout<float>& weight, const FilterParts& parts, std::int64_t channels,
                           std::int64_t columns, std::int64_t column, std::int64_t first, std::int64_t end, Factor* u,
                           std::int64_t width, std::int64_t plane) {
  using V = simd::Vector<float>;
  constexpr std::int64_t group = factor_group<Factor>, lanes = simd::lanes<V>, run = 32;
  const std::int64_t count = std::min(lanes, columns - column);
  alignas(V) float g[run * 9 * lanes];
  for (std::int64_t k = first; k < end; k += run) {
    const std::int64_t rows = grouped<Factor>(std::min(run, end - k));
    gather_filters(weight, parts, channels, column, count, k, rows, g);
    for (std::int64_t r = 0; r < rows; r += group) {
      V values[group * planes];
      for (std::int64_t member = 0; member < group; ++member) {
        V filter[9], half[tile * 3];
        for (std::int64_t t = 0; t < 9; ++t) filter[t] = simd::load<V>(g + ((r + member) * 9 + t) * lanes);
        simd::unroll<3>([&](auto j) STRATA_INLINED { weight_1d<3, 3>(filter + j, half + j); });
        simd::unroll<tile>([&](auto i)
                               STRATA_INLINED { weight_1d<1, 1>(half + i * 3, values + member * planes + i * tile); });
      }
      Factor* const to = u + (k - first + r) * width;
      simd::unroll<planes>([&](auto p) STRATA_INLINED { store_group(to + p * plane, values + p, planes); });
    }
  }
}

/// u[plane] = (G g G^T)[plane] for every part g of the filters of every pair of channels, each plane a matrix of
/// (part, channel) x columns in panels.
template <class Factor>
void transform_weights(const WeightLayout<float>& weight, const FilterParts& parts, std::int64_t channels,
                       std::int64_t columns, Factor* u) {
  using V = simd::Vector<float>;
  constexpr std::int64_t lanes = simd::lanes<V>, panel_columns = panel_vectors * lanes, chunk = 16;
  constexpr std::int64_t group = factor_group<Factor>;
  const std::int64_t depth = parts.count * channels, plane = weights_plane<Factor>(depth, columns);
  const std::int64_t chunks = (depth + chunk - 1) / chunk;
  parallel_for(simd::padded<V>(columns) / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t column = task / chunks * lanes, first = task % chunks * chunk;
    const std::int64_t panel = column / panel_columns * panel_columns;
    const std::int64_t width = std::min(panel_columns, simd::padded<V>(columns) - panel);
    transform_weight_rows(weight, parts, channels, columns, column, first, std::min(depth, first + chunk),
                          u + grouped<Factor>(depth) * panel + first * width + (column - panel) * group, width, plane);
  });
}

}}}  // namespace strata::STRATA_ABI::cpu::winograd
