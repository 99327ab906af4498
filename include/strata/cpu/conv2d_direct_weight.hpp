// The gradients for the weights and the bias of any convolution, by their definition: sums of outer products over
// pixels,
//
//     dweight[o, tap, c] = sum over pixels of dy[pixel, o] * x[pixel under the tap, c]     dbias[o] = sum of dy[pixel,
//     o]
//
// One of the two images gives patches, the pixels under all taps, the other rows of single pixels:
//
//     sums[tap, channel of the patches][channel of the rows] += patch[tap, channel] * row[channel]
//
// The patches are of x, but of dy where dy has so few channels that they would not fill a vector. They are not copied
// together: see TileSources. Tiles of pixels are cut into ranges, the sums into chunks; each range and chunk is a task, and
// ranges are added up in a fixed order.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_gather_weight.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// Cuts the sums over all pixels into tasks, by the problem alone.
template <class T>
struct OuterSumsPlan {
  using V = simd::Vector<T>;
  static constexpr std::int64_t largest_depth = 384;  // rows of sums that stay in a worker's cache

  OuterSumsPlan(std::int64_t tiles, std::int64_t sum_rows, std::int64_t sum_columns)
      : depth(sum_rows),
        columns(sum_columns),
        stride(simd::padded<V>(columns)),
        depth_chunks((depth + largest_depth - 1) / largest_depth),
        ranges(std::clamp<std::int64_t>(32 / depth_chunks, 1, (tiles + 3) / 4)) {}

  std::int64_t depth, columns;
  std::int64_t stride;  ///< columns, padded to whole vectors
  std::int64_t depth_chunks, ranges;
};

/// sums[r][j] = or += sum over a tile's pixels p of patch(p)[places[r]] * row(p)[j], for `count` of Rows elements of the
/// patches and Vectors vectors of the rows' columns. Patches begin at `patches`, `pitch` apart in a row of the tile and
/// `patch_row` from row to row; the rows likewise, `width` apart.
template <class V, int Rows, int Vectors, class T>
[[gnu::noinline]] void outer_block(const GridTile& tile, const T* patches, std::int64_t patch_row, std::int64_t pitch,
                                   const std::int64_t* places, const T* rows, std::int64_t rows_row, std::int64_t width,
                                   T* sums, std::int64_t stride, std::int64_t count, bool add) {
  constexpr std::int64_t lanes = simd::lanes<V>;
  V sum[Rows][Vectors] = {};
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const T* a[Rows];
    simd::unroll<Rows>([&](auto r) STRATA_INLINED { a[r] = patches + i * patch_row + places[r]; });
    const T* b = rows + i * rows_row;
    std::int64_t at = 0;
    const auto step = [&]() STRATA_INLINED {
      V y[Vectors];
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { y[j] = simd::load<V>(b + j * lanes); });
      simd::unroll<Rows>([&](auto r) STRATA_INLINED {
        const V x = simd::broadcast<V>(a[r][at]);
        simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[r][j] += x * y[j]; });
      });
      b += width;
      at += pitch;
    };
    std::int64_t pixel = 0;
    for (; pixel + 2 <= tile.columns; pixel += 2) step(), step();
    if (pixel < tile.columns) step();
  }
  simd::unroll<Rows>([&](auto r) STRATA_INLINED {
    if (r >= count) return;
    simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
      T* const to = sums + r * stride + j * lanes;
      simd::store(to, add ? simd::load<V>(to) + sum[r][j] : sum[r][j]);
    });
  });
}

/// How many of `depth` elements outer_block takes next, so that little is computed in vain: at most Rows, and one of the
/// sizes there are, which can be more than is left.
template <int Rows>
constexpr int next_strip(std::int64_t depth) {
  if (depth >= 2 * Rows) return Rows;
  const std::int64_t part = depth <= Rows ? depth : (depth + 1) / 2;
  return part > 6 ? Rows : part < 4 ? 4 : int(part);
}

/// sums[j] = or += the sum of a tile's rows, Vectors vectors of them.
template <class V, int Vectors, class T>
void sum_rows(const GridTile& tile, const T* rows, std::int64_t rows_row, std::int64_t width, T* sums, bool add) {
  V sum[2][Vectors] = {};  // two sums, so that an addition need not wait for the last
  for (std::int64_t i = 0; i < tile.rows; ++i) {
    const T* b = rows + i * rows_row;
    for (std::int64_t p = 0; p < tile.columns; ++p, b += width) {
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[0][j] += simd::load<V>(b + j * simd::lanes<V>); });
      if (++p == tile.columns) break;
      b += width;
      simd::unroll<Vectors>([&](auto j) STRATA_INLINED { sum[1][j] += simd::load<V>(b + j * simd::lanes<V>); });
    }
  }
  simd::unroll<Vectors>([&](auto j) STRATA_INLINED {
    T* const to = sums + j * simd::lanes<V>;
    const V total = sum[0][j] + sum[1][j];
    simd::store(to, add ? simd::load<V>(to) + total : total);
  });
}

/// sums[range][tap, channel][column] for every range of the plan, where the patches are of `x` and the rows of `y`, the
/// result of a convolution of x with these taps. row_sums, unless nullptr: the sums[range][column] of the rows alone.
template <class T>
void outer_sums(const OuterSumsPlan<T>& plan, const Images<const T>& x, const Images<const T>& y, const TapGrid& grid,
                const GridTiles& tiles, T* sums, T* row_sums) {
  using V = simd::Vector<T>;
  SourceFinder<T> find_sources(x, grid, tiles);
  const std::int64_t copy_size = find_sources.workspace();
  const std::int64_t padded_size = plan.stride == plan.columns ? 0 : tiles.pixels() * plan.stride;
  WorkerScratch<T> workspace(copy_size + padded_size);
  WorkerScratch<std::int64_t> all_places(plan.largest_depth + 8);

  parallel_for(plan.ranges * plan.depth_chunks, [&](std::int64_t task, int worker) {
    T* const copy = workspace[worker];
    T* const padded = copy + copy_size;
    std::int64_t* const places = all_places[worker];
    const std::int64_t range = task / plan.depth_chunks, chunk = task % plan.depth_chunks;
    const std::int64_t first_k = plan.depth * chunk / plan.depth_chunks;
    const std::int64_t depth = plan.depth * (chunk + 1) / plan.depth_chunks - first_k;
    T* const to = sums + (range * plan.depth + first_k) * plan.stride;

    const std::int64_t begin = tiles.count() * range / plan.ranges, end = tiles.count() * (range + 1) / plan.ranges;
    const std::int64_t* offsets = nullptr;
    for (std::int64_t index = begin; index < end; ++index) {
      const GridTile tile = tiles[index];
      const TileSources<T> patches = find_sources(tile, copy);
      if (patches.offsets != offsets) {
        offsets = patches.offsets;
        for (std::int64_t k = 0; k < depth; ++k)
          places[k] = offsets[(first_k + k) / find_sources.depth] + (first_k + k) % find_sources.depth;
        std::fill_n(places + depth, 8, places[depth - 1]);
      }
      const T* rows = y.data + ((tile.n * y.h + tile.i) * y.w + tile.j) * y.c;
      std::int64_t rows_row = y.w * y.c;
      if (plan.stride != plan.columns) {
        for (std::int64_t i = 0; i < tile.rows; ++i)
          for (std::int64_t j = 0; j < tile.columns; ++j) {
            T* const row = padded + (i * tile.columns + j) * plan.stride;
            std::copy_n(rows + i * rows_row + j * y.c, plan.columns, row);
            std::fill(row + plan.columns, row + plan.stride, T(0));
          }
        rows = padded;
        rows_row = tile.columns * plan.stride;
      }
      for_each_even_panel<V, direct_vectors>(plan.columns, [&](std::int64_t column, auto vectors) {
        constexpr int most = direct_rows(vectors);
        for (std::int64_t k = 0; k < depth;) {
          const int strip = next_strip<most>(depth - k);
          const auto block = strip == most ? outer_block<V, most, vectors, T>
                             : strip == 4  ? outer_block<V, 4, vectors, T>
                             : strip == 5  ? outer_block<V, 5, vectors, T>
                                           : outer_block<V, 6, vectors, T>;
          block(tile, patches.corner, patches.row, patches.column, places + k, rows + column, rows_row, plan.stride,
                to + k * plan.stride + column, plan.stride, depth - k, index > begin);
          k += strip;
        }
        if (row_sums != nullptr && chunk == 0)
          sum_rows<V, vectors>(tile, rows + column, rows_row, plan.stride, row_sums + range * plan.stride + column,
                               index > begin);
      });
    }
  });
}

/// dweight[o, k] = or += sum over ranges of sums[range][k][o].
template <class T>
void add_transposed(const OuterSumsPlan<T>& plan, const T* sums, T* dweight, bool accumulate) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>, chunk = 64;
  const std::int64_t chunks = (plan.depth + chunk - 1) / chunk;
  parallel_for(plan.stride / lanes * chunks, [&](std::int64_t task) {
    const std::int64_t o = task / chunks * lanes, first = task % chunks * chunk,
                       end = std::min(plan.depth, first + chunk);
    std::array<T, chunk * lanes> part;
    for (std::int64_t k = first; k < end; ++k) {
      V sum = simd::load<V>(sums + k * plan.stride + o);
      for (std::int64_t range = 1; range < plan.ranges; ++range)
        sum += simd::load<V>(sums + (range * plan.depth + k) * plan.stride + o);
      simd::store(part.data() + (k - first) * lanes, sum);
    }
    for (std::int64_t i = 0; i < std::min(lanes, plan.columns - o); ++i) {
      T* to = dweight + (o + i) * plan.depth;
      for (std::int64_t k = first; k < end; ++k) {
        const T sum = part[std::size_t((k - first) * lanes + i)];
        to[k] = accumulate ? to[k] + sum : sum;
      }
    }
  });
}

/// result[i] = or += sum over ranges of partial[range * stride + i], i < count.
template <class T>
void sum_ranges(const T* partial, std::int64_t ranges, std::int64_t stride, std::int64_t count, T* result,
                bool accumulate) {
  for (std::int64_t i = 0; i < count; ++i) {
    T sum = partial[i];
    for (std::int64_t range = 1; range < ranges; ++range) sum += partial[range * stride + i];
    result[i] = accumulate ? result[i] + sum : sum;
  }
}

/// dweight[o, tap, c] = or += sum over ranges of sums[range][last tap - tap, o][c].
template <class T>
void add_turned(const OuterSumsPlan<T>& plan, const T* sums, std::int64_t taps, std::int64_t out, T* dweight,
                bool accumulate) {
  for (std::int64_t o = 0; o < out; ++o)
    for (std::int64_t t = 0; t < taps; ++t) {
      T* to = dweight + (o * taps + t) * plan.columns;
      for (std::int64_t c = 0; c < plan.columns; ++c) {
        T sum = 0;
        for (std::int64_t range = 0; range < plan.ranges; ++range)
          sum += sums[(range * plan.depth + (taps - 1 - t) * out + o) * plan.stride + c];
        to[c] = accumulate ? to[c] + sum : sum;
      }
    }
}

/// dbias[o] = or += the sum of dy[pixel, o] over all pixels, for at most thin_channels channels.
template <class T>
void sum_thin_pixels(const Images<const T>& dy, T* dbias, bool accumulate) {
  constexpr std::int64_t range = 1024;
  const std::int64_t pixels = dy.pixels(), ranges = (pixels + range - 1) / range;
  Scratch<T> partial(std::size_t(ranges * dy.c));
  parallel_ranges(pixels, range, [&](std::int64_t first, std::int64_t end) {
    for (std::int64_t o = 0; o < dy.c; ++o) {
      T sum = 0;
      for (std::int64_t p = first; p < end; ++p) sum += dy.data[p * dy.c + o];
      partial.data()[first / range * dy.c + o] = sum;
    }
  });
  sum_ranges(partial.data(), ranges, dy.c, dy.c, dbias, accumulate);
}

}  // namespace detail

/// dweight = or += the gradient for the weights, dbias (unless nullptr) = or += that for the bias.
template <class T>
void direct_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  if (gathers_products(p, p.in, p.out)) return detail::gather_backward_weight(p, x, dy, dweight, dbias, accumulate);
  const std::int64_t taps = p.taps();
  const bool flat = pixels_alike(p);  // one long row
  const Images<const T> input = flat ? Images<const T>{x, 1, 1, p.n * p.h * p.w, p.in}
                                     : Images<const T>{x, p.n, p.h, p.w, p.in};
  const Images<const T> result = flat ? Images<const T>{dy, 1, 1, p.n * p.h * p.w, p.out}
                                      : Images<const T>{dy, p.n, p.out_h(), p.out_w(), p.out};
  const bool patches_of_dy = p.out <= thin_channels && p.in > thin_channels && p.stride == 1;
  // Pixel q of x meets dy at q + padding - tap * dilation: a convolution with the kernel turned by 180 degrees.
  const std::int64_t rows_reach = std::int64_t{p.dilation} * (p.kernel - 1), columns_reach = p.dilation * (p.kernel_columns() - 1);
  const Images<const T>&patches = patches_of_dy ? result : input, &rows = patches_of_dy ? input : result;
  Scratch<Tap> all_taps{std::size_t(taps)};
  write_taps(p, patches_of_dy ? rows_reach - p.padding : p.padding,
             patches_of_dy ? columns_reach - p.padding_columns() : p.padding_columns(), all_taps.data());
  const TapGrid grid{0, 0, 1, rows.h, rows.w, p.stride, all_taps.data(), taps};
  const std::int64_t pixel_bytes = (patches.c + rows.c) * std::int64_t(sizeof(T));
  const GridTiles tiles(patches, grid, 64, std::clamp<std::int64_t>(36864 / pixel_bytes, 32, 256),
                        taps * patches.c * rows.c / simd::lanes<simd::Vector<T>> + 1);

  const detail::OuterSumsPlan<T> plan(tiles.count(), taps * patches.c, rows.c);
  Scratch<T> sums(std::size_t(plan.ranges * plan.depth * plan.stride)),
      bias_sums(std::size_t(plan.ranges * plan.stride));
  detail::outer_sums<T>(plan, patches, rows, grid, tiles, sums.data(),
                        dbias && !patches_of_dy ? bias_sums.data() : nullptr);
  if (patches_of_dy) {
    detail::add_turned(plan, sums.data(), taps, p.out, dweight, accumulate);
    if (dbias) detail::sum_thin_pixels(result, dbias, accumulate);
  } else {
    detail::add_transposed(plan, sums.data(), dweight, accumulate);
    if (dbias) detail::sum_ranges(bias_sums.data(), plan.ranges, plan.stride, p.out, dbias, accumulate);
  }
}

/// Bytes that it takes from the pool while it runs, for products of many channels; others take little, which counts as none.
template <class T = float>
std::size_t direct_weight_workspace_bytes(const Conv2dProblem& p) {
  if (!gathers_products(p, p.in, p.out)) return 0;
  const detail::GatherWeightPlan<T> plan(p);
  return MemoryPool::block_bytes(std::size_t(plan.sums_size()) * sizeof(T)) + WorkerScratch<T>::bytes(plan.workspace_size());
}

}  // namespace strata::inline STRATA_ABI::cpu
