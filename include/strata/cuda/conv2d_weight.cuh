// The gradient for the weights of a convolution:
//
//     dweight[o, tap, c] (+)= sum over pixels of dy[pixel, o] * x[place of the pixel under the tap, c]
//
// For each tap a matrix product whose inner dimension are the pixels. A block computes 64 x 64 channels of one tap over
// a range of pixels, 16 at a time through shared memory; at the end the ranges are added in order. How many ranges
// there are depends on the problem alone, so the bits do too. The same kernel serves Winograd's planes, where the inner
// dimension are tiles and both factors lie ready.
//
//     dy  pixels x o          x  n x h x w x c          partial  ranges x o x taps x c
#pragma once

#include <cstdint>

#include "strata/cuda/conv2d_thin.cuh"
#include "strata/cuda/gather.cuh"
#include "strata/cuda/mma.cuh"
#include "strata/cuda/tile_product.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Where a row of B is for pixel k of A: under a tap of the convolution, or in the same row of a plane.
struct WeightShape {
  int pixels, out, in;             ///< inner dimension; channels
  int h, w, kernel, stride, padding, dilation;  ///< of the convolution; kernel 0: planes
  Divisor by_columns, by_rows;     ///< extents of the output
  std::int64_t a_plane, b_plane;   ///< distances of planes

  static WeightShape taps(const Conv2dProblem& p) {
    return {int(p.n * p.out_h() * p.out_w()),
            p.out,
            p.in,
            int(p.h),
            int(p.w),
            p.kernel,
            p.stride,
            p.padding,
            p.dilation,
            Divisor(p.out_w()),
            Divisor(p.out_h()),
            0,
            0};
  }
  static WeightShape planes(std::int64_t tiles, int out, int in) {
    return {int(tiles), out, in, 0, 0, 0, 0, 0, 0, Divisor(), Divisor(), tiles * out, tiles * in};
  }
};

inline constexpr int weight_stages = 3, weight_tile = 64;

struct WeightPlan {
  int out_tiles, in_tiles, ranges;
  std::int64_t range;  ///< pixels
  WeightPlan(const WeightShape& s, int taps)
      : out_tiles(ceil_div(s.out, weight_tile)), in_tiles(ceil_div(s.in, weight_tile)) {
    const std::int64_t blocks = std::int64_t(out_tiles) * in_tiles * taps;
    std::int64_t wanted = ceil_div(std::int64_t{512}, blocks),
                 most = ceil_div(std::int64_t(s.pixels), std::int64_t{256});
    if (wanted > most) wanted = most;
    range = ceil_div(ceil_div(std::int64_t(s.pixels), wanted < 1 ? 1 : wanted), product_depth) * product_depth;
    ranges = int(ceil_div(std::int64_t(s.pixels), range));
  }
};

/// Grid: (out_tiles * in_tiles, taps or planes, ranges).
template <class Product, bool Vectors>
STRATA_GLOBAL void __launch_bounds__(product_block)
    weight_kernel(const __grid_constant__ WeightShape s, int in_tiles, int range, const float* __restrict__ a,
                  const float* __restrict__ b, float* __restrict__ partial) {
  constexpr int depth = product_depth, tile = weight_tile, loads = depth * (tile / 4) / product_block;
  constexpr int a_piece = depth * Product::a_distance, piece = a_piece + depth * Product::b_distance;
  static_assert(Product::rows == tile && Product::columns == tile);
  STRATA_SHARED(float, shared, [weight_stages * piece]);
  const int t = int(threadIdx.x), tap = int(blockIdx.y);
  const int first_o = int(blockIdx.x) / in_tiles * tile, first_c = int(blockIdx.x) % in_tiles * tile;
  const int begin = int(blockIdx.z) * range, end = begin + range < s.pixels ? begin + range : s.pixels;
  const int tap_row = s.kernel > 0 ? tap / s.kernel : 0, tap_column = s.kernel > 0 ? tap % s.kernel : 0;
  a += tap * s.a_plane;
  b += tap * s.b_plane;

  const auto copy_quad = [&](float* to, const float* from, const float* base, bool there, int left) {
    if constexpr (Vectors) {
      const bool exists = there && left > 0;
      cp_async<16>(to, exists ? from : base, exists);
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const bool exists = there && left > k;
        cp_async<4>(to + k, exists ? from + k : base, exists);
      }
    }
  };
  const auto copy = [&](int stage, int first) {
    float* const to_a = shared + stage * piece;
    float* const to_b = to_a + a_piece;
#pragma unroll
    for (int l = 0; l < loads; ++l) {
      const int index = t + l * product_block, k = index / (tile / 4), column = index % (tile / 4) * 4;
      const int pixel = first + k;
      bool there = pixel < end;
      copy_quad(to_a + k * Product::a_distance + column, a + std::int64_t(pixel) * s.out + first_o + column, a, there,
                s.out - first_o - column);
      std::int64_t row = pixel;
      if (s.kernel > 0) {
        const std::uint32_t line = s.by_columns.quotient(std::uint32_t(there ? pixel : 0));
        const std::uint32_t n = s.by_rows.quotient(line);
        const int i = int(line - n * s.by_rows.divisor), j = (there ? pixel : 0) - int(line * s.by_columns.divisor);
        const int h = i * s.stride + tap_row * s.dilation - s.padding,
                  w = j * s.stride + tap_column * s.dilation - s.padding;
        there = there && unsigned(h) < unsigned(s.h) && unsigned(w) < unsigned(s.w);
        row = std::int64_t(int(n) * s.h + h) * s.w + w;
      }
      copy_quad(to_b + k * Product::b_distance + column, b + row * s.in + first_c + column, b, there,
                s.in - first_c - column);
    }
  };

#pragma unroll
  for (int stage = 0; stage < weight_stages - 1; ++stage) {
    if (begin + stage * depth < end) copy(stage, begin + stage * depth);
    cp_async_commit();
  }
  typename Product::Sums sums{};
  int stage = 0;
  for (int first = begin; first < end; first += depth) {
    cp_async_wait<weight_stages - 2>();
    __syncthreads();  // the piece is there for all, and all are done with the one that is overwritten next
    const int next = first + (weight_stages - 1) * depth;
    if (next < end) copy((stage + weight_stages - 1) % weight_stages, next);
    cp_async_commit();
    Product::multiply(shared + stage * piece, shared + stage * piece + a_piece, sums);
    stage = stage + 1 == weight_stages ? 0 : stage + 1;
  }

  Product::visit(sums, [&](int row, int column, const Numbers<Product::width>& part) {
    const int o = first_o + row, c = first_c + column;
    if (o >= s.out) return;
    float* to = partial + ((std::int64_t(blockIdx.z) * s.out + o) * gridDim.y + tap) * s.in + c;
    if (Vectors && c + Product::width <= s.in) {
      store<Product::width>(to, part);
    } else {
#pragma unroll
      for (int k = 0; k < Product::width; ++k)
        if (c + k < s.in) to[k] = part.v[k];
    }
  });
}

/// y[i] (+)= sum over ranges, in order, of partial[range][i].
struct SumRanges {
  const float* partial;
  float* y;
  std::int64_t size;
  int ranges;
  bool accumulate;
  bool aligned() const { return size % 4 == 0 && aligned16(partial, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    Numbers<W> sum{};
#pragma unroll 8
    for (int r = 0; r < ranges; ++r) {
      const Numbers<W> part = load<W>(partial + r * size + i);
#pragma unroll
      for (int k = 0; k < W; ++k) sum.v[k] += part.v[k];
    }
    store<W>(y + i, sum, accumulate);
  }
};

template <class Product>
cudaError_t weight_products_with(cudaStream_t stream, const WeightShape& s, int taps, const float* a, const float* b,
                                 float* partial) {
  const WeightPlan plan(s, taps);
  const dim3 grid(unsigned(plan.out_tiles * plan.in_tiles), unsigned(taps), unsigned(plan.ranges)),
      block(product_block);
  if (s.in % 4 == 0 && s.out % 4 == 0 && aligned16(a, b))
    return launch<&weight_kernel<Product, true>>(grid, block, 0, stream, s, plan.in_tiles, int(plan.range), a, b,
                                                 partial);
  return launch<&weight_kernel<Product, false>>(grid, block, 0, stream, s, plan.in_tiles, int(plan.range), a, b,
                                                partial);
}
/// partial: WeightPlan(s, taps).ranges * out * taps * in floats.
inline cudaError_t weight_products(cudaStream_t stream, const WeightShape& s, int taps, Precision precision,
                                   const float* a, const float* b, float* partial) {
  switch (precision) {
    case Precision::tf32:
      return weight_products_with<Mma<Precision::tf32, 64, 64, false>>(stream, s, taps, a, b, partial);
    case Precision::bf16:
      return weight_products_with<Mma<Precision::bf16, 64, 64, false>>(stream, s, taps, a, b, partial);
    case Precision::fp16:
      return weight_products_with<Mma<Precision::fp16, 64, 64, false>>(stream, s, taps, a, b, partial);
    default: return weight_products_with<FmaByChannels>(stream, s, taps, a, b, partial);
  }
}

// ---- one to four channels on one side

/// The wide side is gone through pixel by pixel, the thin side is read at the places under nine taps.
struct ThinWeightShape {
  int n, h, w, wide_c;           ///< of the wide side
  int thin_h, thin_w, thin_c;
  int kernel, stride, padding, dilation;
  bool wide_is_output;           ///< dy is wide, x is thin; else the other way round
  Divisor by_columns, by_rows, by_stride;

  explicit ThinWeightShape(const Conv2dProblem& p)
      : n(int(p.n)), kernel(p.kernel), stride(p.stride), padding(p.padding), dilation(p.dilation),
        wide_is_output(p.in <= thin_channels && p.in <= p.out), by_stride(p.stride) {
    const int out_h = int(p.out_h()), out_w = int(p.out_w());
    h = wide_is_output ? out_h : int(p.h), w = wide_is_output ? out_w : int(p.w);
    thin_h = wide_is_output ? int(p.h) : out_h, thin_w = wide_is_output ? int(p.w) : out_w;
    wide_c = wide_is_output ? p.out : p.in, thin_c = wide_is_output ? p.in : p.out;
    by_columns = Divisor(w), by_rows = Divisor(h);
  }
  /// The place of the thin side that meets place i of the wide side under tap p, or -1.
  STRATA_DEVICE_MEMBER int thin_place(int i, int p, int size) const {
    const int scaled = i + padding - p * dilation;
    const int quotient = int(by_stride.quotient(std::uint32_t(scaled < 0 ? 0 : scaled)));
    const int place = wide_is_output ? i * stride + p * dilation - padding : quotient;
    const bool meets = wide_is_output || quotient * stride == scaled;
    return meets && unsigned(place) < unsigned(size) ? place : -1;
  }
};

inline constexpr int thin_taps = 9;
struct ThinWeightPlan {
  int lanes, groups, tap_groups, ranges;
  std::int64_t range;
  explicit ThinWeightPlan(const ThinWeightShape& s) {
    const int quads = ceil_div(s.wide_c, 4);
    lanes = 1;
    while (lanes < quads && lanes < 16) lanes *= 2;
    groups = ceil_div(quads, lanes);
    tap_groups = ceil_div(s.kernel * s.kernel, thin_taps);
    const std::int64_t pixels = std::int64_t(s.n) * s.h * s.w, slots = thin_block / lanes;
    const std::int64_t least = slots * 8, wanted = ceil_div(pixels, std::int64_t{512});
    range = ceil_div(wanted < least ? least : wanted, slots) * slots;
    ranges = int(ceil_div(pixels, range));
  }
};

/// partial[range][o][tap][c]. Grid: (groups, ranges, thin channels * tap groups).
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(thin_block, 4)
    thin_weight_kernel(const __grid_constant__ ThinWeightShape s, int lanes, int range, const float* __restrict__ wide,
                       const float* __restrict__ thin, float* __restrict__ partial) {
  STRATA_SHARED(float, shared, [thin_taps][thin_block][4]);
  const int t = int(threadIdx.x), lane = t % lanes, slot = t / lanes, slots = thin_block / lanes;
  const int channel = 4 * (int(blockIdx.x) * lanes + lane), thin_channel = int(blockIdx.z) % s.thin_c;
  const int taps = s.kernel * s.kernel, first_tap = int(blockIdx.z) / s.thin_c * thin_taps;
  const int pixels = s.n * s.h * s.w, begin = int(blockIdx.y) * range;
  const int end = begin + range < pixels ? begin + range : pixels;
  Numbers<4> sums[thin_taps] = {};
  if (channel < s.wide_c)
    for (int pixel = begin + slot; pixel < end; pixel += slots) {
      const std::uint32_t line = s.by_columns.quotient(std::uint32_t(pixel)), n = s.by_rows.quotient(line);
      const int i = int(line - n * s.by_rows.divisor), j = pixel - int(line * s.by_columns.divisor);
      const Numbers<4> v = load_quad<Vectors>(wide + std::int64_t(pixel) * s.wide_c, channel, s.wide_c);
      int row = first_tap / s.kernel, column = first_tap % s.kernel;
#pragma unroll
      for (int k = 0; k < thin_taps; ++k) {
        const int h = s.thin_place(i, row, s.thin_h), w = s.thin_place(j, column, s.thin_w);
        if (++column == s.kernel) column = 0, ++row;
        const bool inside = h >= 0 && w >= 0;  // a load of some number and a choice: no branch
        const float there =
            thin[std::int64_t(inside ? (int(n) * s.thin_h + h) * s.thin_w + w : 0) * s.thin_c + thin_channel];
        const float x = inside ? there : 0.0f;
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[k].v[c] = fmaf(x, v.v[c], sums[k].v[c]);
      }
    }
#pragma unroll
  for (int k = 0; k < thin_taps; ++k)
    store<4>(shared[k][t], sums[k]);
  for (int half = slots / 2; half > 0; half /= 2) {
    __syncthreads();
    if (slot < half)
#pragma unroll
      for (int k = 0; k < thin_taps; ++k) {
        const Numbers<4> other = load<4>(shared[k][t + half * lanes]);
#pragma unroll
        for (int c = 0; c < 4; ++c) sums[k].v[c] += other.v[c];
        store<4>(shared[k][t], sums[k]);
      }
  }
  if (slot > 0 || channel >= s.wide_c) return;
#pragma unroll
  for (int k = 0; k < thin_taps; ++k) {
    const int tap = first_tap + k;
    if (tap >= taps) continue;
    if (s.wide_is_output) {
#pragma unroll
      for (int c = 0; c < 4; ++c)
        if (channel + c < s.wide_c)
          partial[((std::int64_t(blockIdx.y) * s.wide_c + channel + c) * taps + tap) * s.thin_c + thin_channel] =
              sums[k].v[c];
    } else {
      float* row = partial + ((std::int64_t(blockIdx.y) * s.thin_c + thin_channel) * taps + tap) * s.wide_c;
      store_quad<Vectors>(row, channel, s.wide_c, sums[k]);
    }
  }
}

inline bool is_thin_weight(const Conv2dProblem& p) { return p.in <= thin_channels || p.out <= thin_channels; }

/// partial: ThinWeightPlan(shape).ranges * weight_size floats.
inline cudaError_t thin_weight_products(cudaStream_t stream, const ThinWeightShape& s, const float* x, const float* dy,
                                        float* partial) {
  const ThinWeightPlan plan(s);
  const float *wide = s.wide_is_output ? dy : x, *thin = s.wide_is_output ? x : dy;
  const dim3 grid(unsigned(plan.groups), unsigned(plan.ranges), unsigned(s.thin_c * plan.tap_groups)),
      block(thin_block);
  if (s.wide_c % 4 == 0 && aligned16(wide))
    return launch<&thin_weight_kernel<true>>(grid, block, 0, stream, s, plan.lanes, int(plan.range), wide, thin,
                                             partial);
  return launch<&thin_weight_kernel<false>>(grid, block, 0, stream, s, plan.lanes, int(plan.range), wide, thin,
                                            partial);
}

}}}  // namespace strata::STRATA_ABI::cuda
