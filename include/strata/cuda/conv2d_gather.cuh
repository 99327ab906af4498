// Convolution by implicit matrix multiplication, for every kernel size, stride, padding, dilation and number of
// channels: the rows of A are pixels, its columns taps and channels; B are the packed weights (gather.cuh). A block
// computes 128 pixels of 64 or 32 channels, 16 channels of one tap at a time. Pieces of A and B go to shared memory by
// asynchronous copies, two pieces ahead of the multiplication.
//
//     source  n x h x w x c          packed  taps x c (to 16) x k (to 64)          result  n x h' x w' x k
#pragma once

#include <cstdint>

#include "strata/cuda/gather.cuh"
#include "strata/cuda/mma.cuh"
#include "strata/cuda/tile_product.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int gather_stages = 3;

/// How the channels of packed weights are padded.
inline int padded_source(int channels) { return ceil_div(channels, product_depth) * product_depth; }
inline int padded_result(int channels) {
  return ceil_div(channels, channels <= 32 ? 32 : 64) * (channels <= 32 ? 32 : 64);
}
inline std::int64_t packed_size(const Gather& g) {
  return std::int64_t(g.taps()) * padded_source(g.source_c) * padded_result(g.result_c);
}

/// Distances between independent products of the same shape, which blockIdx.z counts (Winograd's planes).
struct Planes {
  std::int64_t source = 0, packed = 0, result = 0;
};

/// Grid: (ceil(pixels / 128), padded result channels / Columns, planes). Shared: gather_stages pieces of A and B.
/// SourceVectors: channels in fours, aligned. Preconditions: source and packed of fewer than 2^31 elements.
template <class Product, bool SourceVectors>
STRATA_GLOBAL void __launch_bounds__(product_block)
    gather_kernel(const __grid_constant__ GatherGrid grid, const __grid_constant__ Planes planes,
                  const float* __restrict__ source, const float* __restrict__ packed, int packed_columns,
                  const __grid_constant__ ConvolutionEnd end, float* __restrict__ result, bool result_vectors) {
  constexpr int rows = Product::rows, columns = Product::columns, depth = product_depth;
  constexpr int a_piece = rows * Product::a_distance, piece = a_piece + depth * Product::b_distance;
  constexpr int a_loads = rows * (depth / 4) / product_block, b_loads = depth * (columns / 4) / product_block;
  STRATA_DYNAMIC_SHARED(float, shared);
  const Gather& g = grid.gather;
  const int t = int(threadIdx.x), pixels = g.n * g.row.count * g.column.count, c_total = g.source_c;
  const int first_pixel = int(blockIdx.x) * rows, first_column = int(blockIdx.y) * columns;
  const int pieces_of_tap = (c_total + depth - 1) / depth, steps = g.row.taps * g.column.taps * pieces_of_tap;
  source += blockIdx.z * planes.source;
  packed += blockIdx.z * planes.packed;

  // A thread copies channels quad*4 to + 3 of rows own_row + 32*l. Neighbours have rows row_partner apart.
  constexpr int partner = Product::row_partner;
  const int quad = t % 4, unit = t / 4 % (2 * partner);
  const int own_row = t / 4 / (2 * partner) * (2 * partner) + unit % 2 * partner + unit / 2;
  int base[a_loads], h0[a_loads], w0[a_loads];
#pragma unroll
  for (int l = 0; l < a_loads; ++l) {
    const int pixel = first_pixel + own_row + l * (product_block / 4);
    const bool exists = pixel < pixels;
    const GatherGrid::Place p = grid.place(exists ? pixel : 0);
    const int row = p.i * g.row.step + g.row.offset;
    w0[l] = p.j * g.column.step + g.column.offset;
    base[l] = ((p.n * g.source_h + row) * g.source_w + w0[l]) * c_total + quad * 4;
    h0[l] = exists ? row : -(1 << 30);  // nowhere
  }

  int tap_row = 0, tap_column = 0, channel = 0;  // of the piece that is copied next
  const float* weights = packed + first_column;
  const auto copy = [&](int stage) {
    float* const a = shared + stage * piece;
    float* const b = a + a_piece;
    const int dh = tap_row * g.row.tap_offset, dw = tap_column * g.column.tap_offset;
    const int shift = (dh * g.source_w + dw) * c_total + channel;
    const int left = c_total - channel - quad * 4;  // channels that exist from this quad on
#pragma unroll
    for (int l = 0; l < a_loads; ++l) {
      const bool inside = unsigned(h0[l] + dh) < unsigned(g.source_h) && unsigned(w0[l] + dw) < unsigned(g.source_w);
      float* const to = a + (own_row + l * (product_block / 4)) * Product::a_distance + quad * 4;
      if constexpr (SourceVectors) {
        const bool there = inside && left > 0;
        cp_async<16>(to, there ? source + (base[l] + shift) : source, there);
      } else {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const bool there = inside && left > k;
          cp_async<4>(to + k, there ? source + (base[l] + shift + k) : source, there);
        }
      }
    }
#pragma unroll
    for (int l = 0; l < b_loads; ++l) {
      const int index = t + l * product_block, k = index / (columns / 4), column = index % (columns / 4) * 4;
      cp_async<16>(b + k * Product::b_distance + column, weights + std::int64_t(k) * packed_columns + column);
    }
    weights += std::int64_t(depth) * packed_columns;
    channel += depth;
    if (channel >= c_total) {
      channel = 0;
      if (++tap_column == g.column.taps) tap_column = 0, ++tap_row;
    }
  };

#pragma unroll
  for (int stage = 0; stage < gather_stages - 1; ++stage) {
    if (stage < steps) copy(stage);
    cp_async_commit();
  }
  typename Product::Sums sums{};
  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<gather_stages - 2>();
    __syncthreads();  // the piece is there for all, and all are done with the one that is overwritten next
    if (step + gather_stages - 1 < steps) copy((stage + gather_stages - 1) % gather_stages);
    cp_async_commit();
    Product::multiply(shared + stage * piece, shared + stage * piece + a_piece, sums);
    stage = stage + 1 == gather_stages ? 0 : stage + 1;
  }

  result += blockIdx.z * planes.result;
  Product::visit(sums, [&](int row, int column, const Numbers<Product::width>& part) {
    const int pixel = first_pixel + row;
    if (pixel >= pixels) return;
    end.write(result + grid.result(grid.place(pixel)), first_column + column, g.result_c, result_vectors, part);
  });
}

template <class Product>
cudaError_t gather_with(cudaStream_t stream, const Gather& g, const Planes& planes, int plane_count,
                        const float* source, const float* packed, const ConvolutionEnd& end, float* result) {
  const int packed_columns = padded_result(g.result_c);
  const dim3 grid(unsigned(ceil_div(g.pixels(), Product::rows)), unsigned(packed_columns / Product::columns),
                  unsigned(plane_count));
  const std::size_t shared = sizeof(float) * gather_stages *
                             std::size_t(Product::rows * Product::a_distance + product_depth * Product::b_distance);
  const bool result_vectors = g.result_c % 4 == 0 && aligned16(result, end.bias);
  const GatherGrid gather_grid(g);
  if (g.source_c % 4 == 0 && aligned16(source))
    return launch<&gather_kernel<Product, true>>(grid, dim3(product_block), shared, stream, gather_grid, planes, source,
                                                 packed, packed_columns, end, result, result_vectors);
  return launch<&gather_kernel<Product, false>>(grid, dim3(product_block), shared, stream, gather_grid, planes, source,
                                                packed, packed_columns, end, result, result_vectors);
}

template <int Columns>
cudaError_t gather_columns(cudaStream_t stream, const Gather& g, Precision precision, const Planes& planes,
                           int plane_count, const float* source, const float* packed, const ConvolutionEnd& end,
                           float* result) {
  switch (precision) {
    case Precision::tf32:
      return gather_with<Mma<Precision::tf32, 128, Columns, true>>(stream, g, planes, plane_count, source, packed, end,
                                                                   result);
    case Precision::bf16:
      return gather_with<Mma<Precision::bf16, 128, Columns, true>>(stream, g, planes, plane_count, source, packed, end,
                                                                   result);
    case Precision::fp16:
      return gather_with<Mma<Precision::fp16, 128, Columns, true>>(stream, g, planes, plane_count, source, packed, end,
                                                                   result);
    default:
      return gather_with<FmaByPixels<Columns>>(stream, g, planes, plane_count, source, packed, end, result);
  }
}

/// packed = the weights of a gather. packed_size(g) floats.
inline cudaError_t pack_weights(cudaStream_t stream, const Gather& g, const float* weight, float* packed) {
  return elementwise(stream, packed_size(g),
                     PackWeights{{},
                                 weight,
                                 packed,
                                 Divisor(padded_result(g.result_c)),
                                 Divisor(padded_source(g.source_c)),
                                 Divisor(g.column.taps > 0 ? g.column.taps : 1),
                                 g});
}

/// result = end(gather of source with packed weights), for plane_count independent products.
inline cudaError_t gather(cudaStream_t stream, const Gather& g, Precision precision, const float* source,
                          const float* packed, const ConvolutionEnd& end, float* result, const Planes& planes = {},
                          int plane_count = 1) {
  if (g.pixels() == 0) return cudaSuccess;
  return padded_result(g.result_c) == 32
             ? gather_columns<32>(stream, g, precision, planes, plane_count, source, packed, end, result)
             : gather_columns<64>(stream, g, precision, planes, plane_count, source, packed, end, result);
}

}}}  // namespace strata::STRATA_ABI::cuda
