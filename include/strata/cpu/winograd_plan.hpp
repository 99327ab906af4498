// How a convolution by Winograd's algorithm is cut into blocks of tiles, and where transformed numbers lie. All of it
// follows from the problem alone, so that results do not depend on the number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "strata/cpu/bfloat16.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/pixel_maps.hpp"
#include "strata/cpu/winograd.hpp"
#include "strata/cpu/winograd_tiles.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu::winograd {

/// Bytes that the tiles of one block may take: under half of the second-level cache, which has 512 KiB or more where
/// there is AVX2 and 1 MiB or more where there is AVX-512. The other half is for the weights.
inline constexpr std::int64_t workspace_bytes = simd::register_bytes * (7 << 10);

/// Output channels whose products are held before they are transformed back: whole panels.
inline constexpr std::int64_t group_columns = 64;

/// The distance of planes of `size` numbers, an odd number of cache lines. At a distance of a power of two all 36
/// planes would compete for the same few places in the cache.
template <class Number = float>
constexpr std::int64_t plane_distance(std::int64_t size) {
  constexpr std::int64_t line = 64 / std::int64_t(sizeof(Number));
  return ((size + line - 1) / line | 1) * line;
}

/// The distance of planes of transformed weights, and their size in floats.
template <class Factor>
constexpr std::int64_t weights_plane(std::int64_t depth, std::int64_t columns) {
  return plane_distance<Factor>(packed_size<simd::Vector<float>>(grouped<Factor>(depth), columns));
}
template <class Factor>
constexpr std::int64_t weights_size(std::int64_t depth, std::int64_t columns) {
  return planes * weights_plane<Factor>(depth, columns) * std::int64_t(sizeof(Factor)) / std::int64_t(sizeof(float));
}

/// Tiles in a block: as many as the workspace holds, but enough to be worth reading all weights for, and fewer if that
/// leaves fewer than 16 blocks; a multiple of block_rows.
inline std::int64_t block_tiles(std::int64_t tiles, std::int64_t depth, std::int64_t columns,
                                std::int64_t factor_bytes) {
  const std::int64_t tile_bytes =
      planes * (depth * factor_bytes + std::min(columns, group_columns) * std::int64_t(sizeof(float)));
  const std::int64_t wanted = std::min(std::clamp<std::int64_t>(workspace_bytes / tile_bytes, 18, 48), tiles / 16);
  return std::max<std::int64_t>(wanted / block_rows, 2) * block_rows;
}

/// Tiles and channels of the source that are multiplied with one piece of the weights, where the weights are too many
/// for a core's cache: see deep_convolution.
inline constexpr std::int64_t deep_tiles = simd::registers == 32 ? 48 : 24, deep_channels = deep_tiles * 2 / 3;

/// Whether the weights are too many to be read for every block: they do not stay in a core's cache beside the tiles, or
/// there are so few tiles that preparing them is most of the work.
constexpr bool is_deep(std::int64_t tiles, std::int64_t in, std::int64_t out) {
  return out >= group_columns && (in * out >= 128 * 256 || (in * out >= 64 * 64 && tiles <= 32));
}

/// Blocks whose tiles are held at a time, so that there are tasks enough, and the most floats that they take.
constexpr std::int64_t deep_held(std::int64_t out) {
  return std::max<std::int64_t>(8 / ((out + group_columns - 1) / group_columns), 1);
}
constexpr std::int64_t deep_held_size(std::int64_t in, std::int64_t out) {
  const std::int64_t chunks = (in + deep_channels - 1) / deep_channels;
  return is_deep(std::numeric_limits<std::int64_t>::max(), in, out)
             ? deep_held(out) * chunks * planes * plane_distance(deep_tiles * deep_channels)
             : 0;
}

/// Tiles in a block of a convolution with so many weights: equal shares, a multiple of block_rows.
inline std::int64_t deep_block(std::int64_t tiles, std::int64_t most) {
  const std::int64_t blocks = (tiles + most - 1) / most;
  return (tiles + blocks * block_rows - 1) / (blocks * block_rows) * block_rows;
}

/// How a convolution's tiles are cut into blocks, by the problem alone, and the workspace of a block: transformed tiles
/// v and products m, 36 planes of each, and room for pixels outside the image.
template <class Factor>
struct ConvolutionPlan {
  using V = simd::Vector<float>;

  ConvolutionPlan(const Images<const float>& x, const Images<const float>& y, std::int64_t kernel,
                  std::int64_t dilation)
      : parts(kernel),
        depth(grouped<Factor>(parts.count * x.c)),
        tiles(y.n, y.h, y.w, dilation),
        deep(std::is_same_v<Factor, float> && parts.count == 1 && is_deep(tiles.count, x.c, y.c)),
        block(deep ? deep_block(tiles.count, deep_tiles) : block_tiles(tiles.count, depth, y.c, sizeof(Factor))),
        blocks((tiles.count + block - 1) / block),
        v_stride(deep ? deep_channels : TileReader::stride(parts.count, x.c)),
        m_stride(simd::padded<V>(std::min(y.c, group_columns))),
        v_plane(plane_distance<Factor>(block * v_stride)),
        m_plane(plane_distance(block * m_stride)) {}

  std::int64_t tiles_of(std::int64_t index) const { return std::min(block, tiles.count - index * block); }

  /// Whether weights that come with the call are transformed piece by piece: once for each block, which costs less than
  /// to write and read them for few blocks.
  bool transforms_in_place() const { return deep && blocks <= 4; }

  // Of deep ones: chunks of the source's channels, groups of columns, blocks whose tiles are held at a time.
  std::int64_t chunks() const { return (depth + deep_channels - 1) / deep_channels; }
  std::int64_t groups(std::int64_t columns) const { return (columns + group_columns - 1) / group_columns; }
  std::int64_t held(std::int64_t columns) const { return std::min(deep_held(columns), blocks); }
  /// In floats: of the tiles of a block, and of a piece of the weights.
  std::int64_t deep_size() const { return chunks() * planes * v_plane; }
  std::int64_t piece_plane() const { return plane_distance(deep_channels * m_stride); }

  /// In floats: of the tiles alone, and of all.
  std::int64_t v_size() const { return planes * v_plane * std::int64_t(sizeof(Factor)) / std::int64_t(sizeof(float)); }
  std::int64_t workspace_size() const { return v_size() + planes * m_plane + m_stride; }

  FilterParts parts;
  std::int64_t depth;  ///< of the products
  Tiles tiles;
  bool deep;
  std::int64_t block, blocks, v_stride, m_stride, v_plane, m_plane;
};

}}}  // namespace strata::STRATA_ABI::cpu::winograd
