// Winograd's convolution where the transformed weights are more than a core's cache holds: 36 numbers for each pair of
// channels are 38 MB for 512 x 512. A block of tiles would read all of them from memory. Here the weights are cut in
// pieces instead,
//
//     transform the tiles of some blocks, all channels       ->  v[block][chunk of channels][plane][tile][channel]
//     for each block and group of columns:  sum over chunks of v[chunk] * (piece of the weights), transform back
//
// and a piece is used for all tiles of a block while it is in the second-level cache. Where the weights change with
// every call, as in training, a piece is transformed just before it is used and never goes through memory.
//
// The terms of a sum are added in the order of channels, as elsewhere, so that both ways give the same bits.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/epilogue.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_block.hpp"
#include "strata/cpu/winograd_plan.hpp"
#include "strata/cpu/winograd_tiles.hpp"
#include "strata/cpu/winograd_weights.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

/// Some rows of a group of columns of the 36 planes of transformed weights, in panels of `depth` rows, of which it
/// begins with row `row`.
struct Piece {
  const float* first;
  std::int64_t plane, depth, row;

  const float* panel(int p, std::int64_t column, std::int64_t width) const {
    return first + p * plane + depth * column + row * width;
  }
};

/// Where pieces come from: weights that lie transformed in memory, or those of the convolution itself.
struct Pieces {
  const float* packed;  ///< or nullptr
  WeightLayout<float> weight;
  std::int64_t channels, columns;

  /// Channels [first, first + count) for columns [group, group_end); `memory`, with planes `plane` apart, is there to
  /// transform them to.
  Piece operator()(std::int64_t first, std::int64_t count, std::int64_t group, std::int64_t group_end, float* memory,
                   std::int64_t plane) const {
    if (packed) return {packed + channels * group, weights_plane<float>(channels, columns), channels, first};
    using V = simd::Vector<float>;
    for_each_panel<V>(group_end - group, [&](std::int64_t column, auto vectors) {
      constexpr std::int64_t width = vectors * simd::lanes<V>;
      for (std::int64_t j = 0; j < width; j += simd::lanes<V>)
        transform_weight_rows(weight, FilterParts(3), channels, columns, group + column + j, first, first + count,
                              memory + count * column + j, width, plane);
    });
    return {memory, plane, count, 0};
  }
};

/// m[plane] = or += v[plane] * rows of a piece, for `tiles` rows, a multiple of block_rows. The rows are `chunks` times
/// `depth`; those of v lie `v_stride` apart, its chunks `v_chunk`.
inline void multiply_piece(std::int64_t tiles, std::int64_t chunks, std::int64_t depth, std::int64_t columns,
                           const float* v, std::int64_t v_stride, std::int64_t v_chunk, std::int64_t v_plane,
                           const Piece& piece, bool add, float* m, std::int64_t m_plane) {
  using V = simd::Vector<float>;
  const std::int64_t m_stride = simd::padded<V>(columns);
  for (int p = 0; p < planes; ++p, v += v_plane, m += m_plane)
    for_each_panel<V>(columns, [&](std::int64_t column, auto vectors) {
      const float* const panel = piece.panel(p, column, vectors * simd::lanes<V>);
      for_each_row_block<vectors>(tiles, [&](std::int64_t t, auto rows) STRATA_INLINED {
        float* const sums = m + t * m_stride + column;
        const auto place = [&](int r, int j) STRATA_INLINED { return sums + r * m_stride + j * simd::lanes<V>; };
        multiply<V, rows, vectors>(
            chunks, depth, [&](std::int64_t s, int r) STRATA_INLINED { return v + s * v_chunk + (t + r) * v_stride; },
            panel, [&](int r, int j, V sum) STRATA_INLINED { simd::store(place(r, j), sum); },
            [&](int r, int j) STRATA_INLINED { return add ? simd::load<V>(place(r, j)) : V{}; });
      });
    });
}

/// y = epilogue(convolution of x, read through `map`), for plans that are deep. make_sink(b) is the sink of what block
/// b writes.
template <class Map, class MakeSink>
void deep_convolution(const ConvolutionPlan<float>& plan, const Images<const float>& x, const Map& map,
                      std::int64_t padding, const Pieces& pieces, const Images<float>& y,
                      const Epilogue<float>& scalar_epilogue, const MakeSink& make_sink) {
  const VectorEpilogue<float> epilogue(scalar_epilogue, y.c);
  const std::int64_t groups = plan.groups(y.c), held = plan.held(y.c), chunk = deep_channels;
  const std::int64_t chunk_distance = planes * plan.v_plane, piece_size = planes * plan.piece_plane();
  Scratch<float> tiles(std::size_t(held * plan.deep_size()));
  WorkerScratch<float> workspace(piece_size + planes * plan.m_plane + plan.m_stride);
  const TileReader reader(x, plan.parts, padding, plan.tiles.dilation);

  for (std::int64_t begin = 0; begin < plan.blocks; begin += held) {
    const std::int64_t some = std::min(held, plan.blocks - begin);
    parallel_for(some * plan.block, [&](std::int64_t task) {
      const std::int64_t block = task / plan.block, t = task % plan.block;
      float* const v = tiles.data() + block * plan.deep_size() + t * chunk;
      if (t < plan.tiles_of(begin + block))
        reader.transform_in_chunks(map, plan.tiles[(begin + block) * plan.block + t], chunk, v, chunk_distance,
                                   plan.v_plane);
      else
        for (std::int64_t plane = 0; plane < plan.chunks() * planes; ++plane)
          std::fill_n(v + plane / planes * chunk_distance + plane % planes * plan.v_plane, chunk, 0.0f);
    });
    parallel_for(some * groups, [&](std::int64_t task, int worker) {
      const std::int64_t block = task / groups, group = task % groups * group_columns;
      const std::int64_t columns = std::min(group_columns, y.c - group);
      float* const piece = workspace[worker];
      float* const m = piece + piece_size;
      float* const outside = m + planes * plan.m_plane;
      std::fill_n(outside, plan.m_stride, 0.0f);
      const std::int64_t count = plan.tiles_of(begin + block);
      const std::int64_t rows = (count + block_rows - 1) / block_rows * block_rows;
      const float* const v = tiles.data() + block * plan.deep_size();
      // Sums stay in registers over all chunks of weights that lie in memory.
      const std::int64_t together = pieces.packed ? std::max<std::int64_t>(x.c / chunk, 1) : 1;
      for (std::int64_t first = 0, some_chunks; first < x.c; first += some_chunks * chunk) {
        const std::int64_t depth = std::min(chunk, x.c - first);
        some_chunks = first == 0 ? together : 1;
        multiply_piece(rows, some_chunks, depth, columns, v + first / chunk * chunk_distance, chunk, chunk_distance,
                       plan.v_plane, pieces(first, depth, group, group + columns, piece, plan.piece_plane()), first > 0,
                       m, plan.m_plane);
      }
      write_block(plan, begin + block, y, group, columns, m, outside, epilogue, make_sink(begin + block));
    });
  }
}

/// Bytes that it takes from the pool while it runs, statistics and prepared weights not counted.
inline std::size_t deep_workspace_bytes(const ConvolutionPlan<float>& plan, std::int64_t columns) {
  return MemoryPool::block_bytes(std::size_t(plan.held(columns) * plan.deep_size()) * sizeof(float)) +
         WorkerScratch<float>::bytes(planes * (plan.piece_plane() + plan.m_plane) + plan.m_stride);
}

}}}  // namespace strata::STRATA_ABI::cpu::winograd
