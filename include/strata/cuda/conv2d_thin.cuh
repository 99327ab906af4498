// Convolutions with one to four channels on one side, as at the ends of a network for images. A matrix multiplication
// would multiply mostly zeros; these kernels read the wide side once, 16 bytes to a lane, and are bound by memory.
//
//     few -> many     a thread computes four channels of four pixels; the few are read from cache
//     many -> few     lanes run along the channels of the source, and add their sums at the end
//     weights         a thread adds up nine taps for four channels of the wide side, whose pixels are gone through once
#pragma once

#include <cstdint>

#include "strata/cuda/gather.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int thin_channels = 4, thin_block = 128, thin_pixels = 4;

inline bool is_thin_source(const Gather& g) { return g.source_c <= thin_channels && g.taps() <= 128; }
inline bool is_thin_result(const Gather& g) { return g.result_c <= thin_channels; }

/// packed[tap][c][k] with k padded to 4.
inline std::int64_t thin_source_packed_size(const Gather& g) {
  return std::int64_t(g.taps()) * g.source_c * ceil_div(g.result_c, 4) * 4;
}

/// few -> many. A thread has pixels 4*group to + 3 and result channels 4*quad to + 3. Grid: ceil(groups * quads / 128).
STRATA_GLOBAL void __launch_bounds__(thin_block)
    thin_source_kernel(const __grid_constant__ GatherGrid grid, Divisor by_quads, const float* __restrict__ source,
                       const float* __restrict__ packed, const __grid_constant__ ConvolutionEnd end,
                       float* __restrict__ result, bool result_vectors) {
  const Gather& g = grid.gather;
  const int pixels = g.n * g.row.count * g.column.count, groups = (pixels + thin_pixels - 1) / thin_pixels;
  const std::uint32_t index = blockIdx.x * thin_block + threadIdx.x, group = by_quads.quotient(index);
  if (int(group) >= groups) return;
  const int channel = 4 * int(index - group * by_quads.divisor), row_of_weights = 4 * int(by_quads.divisor);
  const int first = int(group) * thin_pixels;

  int n[thin_pixels], h0[thin_pixels], w0[thin_pixels];
#pragma unroll
  for (int p = 0; p < thin_pixels; ++p) {
    const GatherGrid::Place place = grid.place(first + p < pixels ? first + p : first);
    n[p] = place.n * g.source_h;
    h0[p] = place.i * g.row.step + g.row.offset;
    w0[p] = place.j * g.column.step + g.column.offset;
  }
  Numbers<4> sums[thin_pixels] = {};
  const float* weights = packed + channel;
  for (int tr = 0; tr < g.row.taps; ++tr)
    for (int tc = 0; tc < g.column.taps; ++tc) {
      int from[thin_pixels];  // -1: outside
#pragma unroll
      for (int p = 0; p < thin_pixels; ++p) {
        const int h = h0[p] + tr * g.row.tap_offset, w = w0[p] + tc * g.column.tap_offset;
        const bool inside = unsigned(h) < unsigned(g.source_h) && unsigned(w) < unsigned(g.source_w);
        from[p] = inside ? ((n[p] + h) * g.source_w + w) * g.source_c : -1;
      }
      for (int c = 0; c < g.source_c; ++c, weights += row_of_weights) {
        const Numbers<4> w = load<4>(weights);
#pragma unroll
        for (int p = 0; p < thin_pixels; ++p) {
          // a load of some number and a choice: no branch
          const float there = source[(from[p] >= 0 ? from[p] : 0) + c];
          const float x = from[p] >= 0 ? there : 0.0f;
#pragma unroll
          for (int k = 0; k < 4; ++k) sums[p].v[k] = fmaf(x, w.v[k], sums[p].v[k]);
        }
      }
    }
#pragma unroll
  for (int p = 0; p < thin_pixels; ++p)
    if (first + p < pixels)
      end.write(result + grid.result(grid.place(first + p)), channel, g.result_c, result_vectors, sums[p]);
}

/// packed[tap][k][c], c padded to 4 and k to `results`.
struct PackRows : SingleElements {
  const float* weight;
  float* packed;
  Divisor by_source, by_result, by_column_taps;
  Gather gather;

  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t element) const {
    const std::uint32_t e = std::uint32_t(element), row = by_source.quotient(e), tap = by_result.quotient(row);
    const int c = int(e - row * by_source.divisor), k = int(row - tap * by_result.divisor);
    const int tap_row = int(by_column_taps.quotient(tap)), tap_column = int(tap) - tap_row * gather.column.taps;
    const int place = (gather.row.first_tap + tap_row * gather.row.tap_step) * gather.kernel + gather.column.first_tap +
                      tap_column * gather.column.tap_step;
    const bool there = c < gather.source_c && k < gather.result_c;
    packed[element] = there ? weight[std::int64_t(place) * gather.tap_stride + std::int64_t(c) * gather.source_stride +
                                     std::int64_t(k) * gather.result_stride]
                            : 0.0f;
  }
};
inline int thin_results(const Gather& g) { return g.result_c == 1 ? 1 : thin_channels; }
inline std::int64_t thin_result_packed_size(const Gather& g) {
  return std::int64_t(g.taps()) * thin_results(g) * ceil_div(g.source_c, 4) * 4;
}

/// many -> few. `lanes` lanes (a power of two up to 32) share four pixels. Grid: ceil(pixels / (4 * 128 / lanes)).
template <int Results, bool Vectors>
STRATA_GLOBAL void __launch_bounds__(thin_block, 4)
    thin_result_kernel(const __grid_constant__ GatherGrid grid, int lanes, const float* __restrict__ source,
                       const float* __restrict__ packed, const __grid_constant__ ConvolutionEnd end,
                       float* __restrict__ result) {
  const Gather& g = grid.gather;
  const int pixels = g.n * g.row.count * g.column.count, padded = (g.source_c + 3) / 4 * 4;
  const int lane = int(threadIdx.x) % lanes;
  const int first = (int(blockIdx.x) * (thin_block / lanes) + int(threadIdx.x) / lanes) * thin_pixels;

  int n[thin_pixels], h0[thin_pixels], w0[thin_pixels];
#pragma unroll
  for (int p = 0; p < thin_pixels; ++p) {
    const GatherGrid::Place place = grid.place(first + p < pixels ? first + p : 0);
    n[p] = place.n * g.source_h;
    h0[p] = place.i * g.row.step + g.row.offset;
    w0[p] = place.j * g.column.step + g.column.offset;
  }
  float sums[thin_pixels][Results] = {};
  const float* weights = packed;
  for (int tr = 0; tr < g.row.taps; ++tr)
    for (int tc = 0; tc < g.column.taps; ++tc, weights += Results * padded) {
      int from[thin_pixels];  // -1: outside
#pragma unroll
      for (int p = 0; p < thin_pixels; ++p) {
        const int h = h0[p] + tr * g.row.tap_offset, w = w0[p] + tc * g.column.tap_offset;
        const bool inside = unsigned(h) < unsigned(g.source_h) && unsigned(w) < unsigned(g.source_w);
        from[p] = inside ? ((n[p] + h) * g.source_w + w) * g.source_c : -1;
      }
#pragma unroll 1
      for (int c = 4 * lane; c < g.source_c; c += 4 * lanes) {
        Numbers<4> w[Results];
#pragma unroll
        for (int k = 0; k < Results; ++k) w[k] = load<4>(weights + k * padded + c);
#pragma unroll
        for (int p = 0; p < thin_pixels; ++p) {
          const bool inside = from[p] >= 0;
          const Numbers<4> x = load_quad<Vectors>(source + (inside ? from[p] : 0), c, g.source_c);
#pragma unroll
          for (int k = 0; k < Results; ++k)
#pragma unroll
            for (int j = 0; j < 4; ++j) sums[p][k] = fmaf(inside ? x.v[j] : 0.0f, w[k].v[j], sums[p][k]);
        }
      }
    }
  for (int distance = lanes / 2; distance > 0; distance /= 2)
#pragma unroll
    for (int p = 0; p < thin_pixels; ++p)
#pragma unroll
      for (int k = 0; k < Results; ++k) sums[p][k] += __shfl_xor_sync(all_lanes, sums[p][k], distance);
  if (lane != 0) return;
#pragma unroll
  for (int p = 0; p < thin_pixels; ++p)
    if (first + p < pixels) {
      float* to = result + grid.result(grid.place(first + p));
#pragma unroll
      for (int k = 0; k < Results; ++k) end.write(to, k, g.result_c, false, Numbers<1>{{sums[p][k]}});
    }
}

/// Thin gathers. packed: room for thin_source_packed_size or thin_result_packed_size floats.
inline cudaError_t thin_source_gather(cudaStream_t stream, const Gather& g, const float* source, const float* weight,
                                      float* packed, const ConvolutionEnd& end, float* result) {
  const int quads = ceil_div(g.result_c, 4);
  const cudaError_t status =
      elementwise(stream, thin_source_packed_size(g),
                  PackWeights{{}, weight, packed, Divisor(4 * quads), Divisor(g.source_c),
                              Divisor(g.column.taps > 0 ? g.column.taps : 1), g});
  if (status != cudaSuccess) return status;
  const std::int64_t threads = ceil_div(g.pixels(), thin_pixels) * quads;
  return launch<&thin_source_kernel>(dim3(unsigned(ceil_div(threads, thin_block))), dim3(thin_block), 0, stream,
                                     GatherGrid(g), Divisor(quads), source, packed, end, result,
                                     g.result_c % 4 == 0 && aligned16(result, end.bias));
}

template <int Results>
cudaError_t thin_result_with(cudaStream_t stream, const Gather& g, const float* source, const float* packed,
                             const ConvolutionEnd& end, float* result) {
  int lanes = 1;
  while (lanes < 32 && lanes * 4 < g.source_c) lanes *= 2;
  const std::int64_t pixels_of_block = std::int64_t(thin_block / lanes) * thin_pixels;
  const dim3 grid(unsigned(ceil_div(g.pixels(), pixels_of_block))), block(thin_block);
  if (g.source_c % 4 == 0 && aligned16(source))
    return launch<&thin_result_kernel<Results, true>>(grid, block, 0, stream, GatherGrid(g), lanes, source, packed, end,
                                                      result);
  return launch<&thin_result_kernel<Results, false>>(grid, block, 0, stream, GatherGrid(g), lanes, source, packed, end,
                                                     result);
}
inline cudaError_t thin_result_gather(cudaStream_t stream, const Gather& g, const float* source, const float* weight,
                                      float* packed, const ConvolutionEnd& end, float* result) {
  const cudaError_t status =
      elementwise(stream, thin_result_packed_size(g),
                  PackRows{{}, weight, packed, Divisor(ceil_div(g.source_c, 4) * 4), Divisor(thin_results(g)),
                           Divisor(g.column.taps > 0 ? g.column.taps : 1), g});
  if (status != cudaSuccess) return status;
  return thin_results(g) == 1 ? thin_result_with<1>(stream, g, source, packed, end, result)
                              : thin_result_with<thin_channels>(stream, g, source, packed, end, result);
}

}}}  // namespace strata::STRATA_ABI::cuda
