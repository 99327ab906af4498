// Kernels that move numbers: pixel shuffle, transposition, and the channels of one image into another. Tensors of fewer
// than 2^31 elements.
#pragma once

#include <cstdint>

#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/numbers.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Pixel shuffle; threads stand for elements of the result. Large (c, i*r + p, j*r + q) is small (c*r*r + p*r + q, i,
/// j).
template <bool Inverse>
struct PixelShuffle : SingleElements {
  const float* from;
  float* to;
  Divisor by_channels, by_r, by_width;  ///< channels and width of the image that is written
  int channels, w, r;                   ///< channels of the large image, width of the small one
  bool accumulate;
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const std::uint32_t e = std::uint32_t(element), pixel = by_channels.quotient(e), row = by_width.quotient(pixel);
    const int c = int(e - pixel * by_channels.divisor), column = int(pixel - row * by_width.divisor);
    float value;
    if constexpr (Inverse) {  // element is (n*h + i, j, c*r*r + p*r + q); row counts through images
      const int cp = int(by_r.quotient(std::uint32_t(c))), q = c - cp * r;
      const int large_c = int(by_r.quotient(std::uint32_t(cp))), p = cp - large_c * r;
      value = from[((int(row) * r + p) * (w * r) + column * r + q) * channels + large_c];
    } else {
      const int i = int(by_r.quotient(row)), p = int(row) - i * r;
      const int j = int(by_r.quotient(std::uint32_t(column))), q = column - j * r;
      value = from[(i * w + j) * (channels * r * r) + (c * r + p) * r + q];
    }
    to[element] = accumulate ? to[element] + value : value;
  }
};

inline constexpr int transpose_tile = 32, transpose_rows = 8;

/// to[b, column, row] (+)= from[b, row, column]: a tile of 32 x 32 through shared memory, so that both sides are read
/// and written along their rows. Grid: (column tiles * row tiles, batch).
STRATA_GLOBAL void __launch_bounds__(transpose_tile* transpose_rows)
    transpose_kernel(std::int64_t rows, std::int64_t columns, std::int64_t column_tiles, const float* __restrict__ from,
                     float* __restrict__ to, bool accumulate) {
  STRATA_SHARED(float, tile, [transpose_tile][transpose_tile + 1]);
  const int lane = int(threadIdx.x) % transpose_tile, slot = int(threadIdx.x) / transpose_tile;
  const std::int64_t first_row = std::int64_t(blockIdx.x) / column_tiles * transpose_tile;
  const std::int64_t first_column = std::int64_t(blockIdx.x) % column_tiles * transpose_tile;
  const std::int64_t batch = std::int64_t(blockIdx.y) * rows * columns;
#pragma unroll
  for (int k = slot; k < transpose_tile; k += transpose_rows)
    if (first_row + k < rows && first_column + lane < columns)
      tile[k][lane] = from[batch + (first_row + k) * columns + first_column + lane];
  __syncthreads();
#pragma unroll
  for (int k = slot; k < transpose_tile; k += transpose_rows)
    if (first_column + k < columns && first_row + lane < rows) {
      float* place = to + batch + (first_column + k) * rows + first_row + lane;
      *place = accumulate ? *place + tile[lane][k] : tile[lane][k];
    }
}

inline cudaError_t transpose(cudaStream_t stream, std::int64_t batch, std::int64_t rows, std::int64_t columns,
                             const float* from, float* to, bool accumulate) {
  const std::int64_t column_tiles = ceil_div(columns, transpose_tile), row_tiles = ceil_div(rows, transpose_tile);
  constexpr std::int64_t most = 65535;  // of a grid's y extent
  for (std::int64_t first = 0; first < batch; first += most) {
    const dim3 grid(unsigned(column_tiles * row_tiles), unsigned(batch - first < most ? batch - first : most));
    const std::int64_t offset = first * rows * columns;
    const cudaError_t status = launch<&transpose_kernel>(grid, dim3(transpose_tile * transpose_rows), 0, stream, rows,
                                                         columns, column_tiles, from + offset, to + offset, accumulate);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

/// to[pixel, to_first + c] (+)= from[pixel, from_first + c] for c below the divisor. W = 4 where all counts are
/// multiples of 4.
struct CopyChannels {
  const float* from;
  float* to;
  Divisor by_count;  ///< of quads where `quads`, else of channels
  int from_channels, from_first, to_channels, to_first;
  bool quads, accumulate;
  bool aligned() const { return quads; }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const std::uint32_t unit = std::uint32_t(W == 4 ? element / 4 : element);
    const std::uint32_t pixel = by_count.quotient(unit), c = (unit - pixel * by_count.divisor) * W;
    const Numbers<W> v = load<W>(from + std::int64_t(pixel) * from_channels + from_first + c);
    store<W>(to + std::int64_t(pixel) * to_channels + to_first + c, v, accumulate);
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
