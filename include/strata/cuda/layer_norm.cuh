// Normalisation of every pixel over its channels (LayerNorm2d). The formulas stand in kernels/accelerator.hpp. A pixel
// has as many neighbouring lanes of a warp as it has quads of channels, up to all 32; they read it for the mean, again
// for the squared deviations from it, and again for the result, the last two times out of the L1 cache.
#pragma once

#include <cstdint>

#include "strata/cuda/group_norm.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/math/gradient_target.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int layer_norm_block = 256;

/// Lanes of a pixel: a power of two.
inline int layer_norm_lanes(int channels) {
  int lanes = 1;
  while (lanes < 32 && 4 * lanes < channels) lanes *= 2;
  return lanes;
}

/// The sum over the `lanes` neighbouring lanes that a pixel has, in all of them: the whole warp must call it.
STRATA_DEVICE float sum_of_lanes(float value, int lanes) {
  for (int distance = lanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
  return value;
}
STRATA_DEVICE float sum_of_quad(const Numbers<4>& v) { return (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]); }

/// y = (x - mean) * inverse_std * weight + bias; numbers[pixel] = {mean, inverse_std}, nullptr: not wanted.
/// Grid: ceil(pixels * lanes / layer_norm_block).
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(layer_norm_block)
    layer_norm_kernel(std::int64_t pixels, int channels, int lanes, float eps, const float* __restrict__ x,
                      const float* __restrict__ weight, const float* __restrict__ bias, float* __restrict__ y,
                      float* __restrict__ numbers) {
  const int t = int(threadIdx.x), first = 4 * (t % lanes);
  const std::int64_t pixel = std::int64_t(blockIdx.x) * (layer_norm_block / lanes) + t / lanes;
  const int end = pixel < pixels ? channels : 0;  // lanes without a pixel only join in the sums
  const float* const from = x + pixel * channels;
  float sum = 0;
  for (int c = first; c < end; c += 4 * lanes) sum += sum_of_quad(load_quad<Vectors>(from, c, channels));
  const float mean = sum_of_lanes(sum, lanes) / float(channels);
  float deviations = 0;
  for (int c = first; c < end; c += 4 * lanes) {
    Numbers<4> v = load_quad<Vectors>(from, c, channels);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float d = Vectors || c + k < channels ? v.v[k] - mean : 0.0f;
      v.v[k] = d * d;
    }
    deviations += sum_of_quad(v);
  }
  const float inverse = 1.0f / sqrtf(sum_of_lanes(deviations, lanes) / float(channels) + eps);
  float* const to = y + pixel * channels;
  for (int c = first; c < end; c += 4 * lanes) {
    Numbers<4> v = load_quad<Vectors>(from, c, channels);
    const Numbers<4> w = load_quad<Vectors>(weight, c, channels), b = load_quad<Vectors>(bias, c, channels);
#pragma unroll
    for (int k = 0; k < 4; ++k) v.v[k] = fmaf((v.v[k] - mean) * inverse, w.v[k], b.v[k]);
    store_quad<Vectors>(to, c, channels, v);
  }
  if (numbers != nullptr && first < 4 && end > 0) {
    numbers[2 * pixel] = mean;
    numbers[2 * pixel + 1] = inverse;
  }
}

/// dx (+)= inverse_std * (g - mean of g - xhat * mean of g * xhat) with g = dy * weight. Grid as above.
template <bool Vectors>
STRATA_GLOBAL void __launch_bounds__(layer_norm_block)
    layer_norm_input_kernel(std::int64_t pixels, int channels, int lanes, const float* __restrict__ x,
                            const float* __restrict__ numbers, const float* __restrict__ weight,
                            const float* __restrict__ dy, float* __restrict__ dx, bool accumulate) {
  const int t = int(threadIdx.x), first = 4 * (t % lanes);
  const std::int64_t pixel = std::int64_t(blockIdx.x) * (layer_norm_block / lanes) + t / lanes;
  const int end = pixel < pixels ? channels : 0;
  const float *const from = x + pixel * channels, *const gradient = dy + pixel * channels;
  float mean = 0, inverse = 0;
  if (end > 0) mean = numbers[2 * pixel], inverse = numbers[2 * pixel + 1];
  float sum_g = 0, sum_gx = 0;
  for (int c = first; c < end; c += 4 * lanes) {
    const Numbers<4> v = load_quad<Vectors>(from, c, channels), w = load_quad<Vectors>(weight, c, channels);
    Numbers<4> g = load_quad<Vectors>(gradient, c, channels), gx;  // zeros behind the channels
#pragma unroll
    for (int k = 0; k < 4; ++k) g.v[k] *= w.v[k], gx.v[k] = g.v[k] * ((v.v[k] - mean) * inverse);
    sum_g += sum_of_quad(g);
    sum_gx += sum_of_quad(gx);
  }
  const float mean_g = sum_of_lanes(sum_g, lanes) / float(channels),
              mean_gx = sum_of_lanes(sum_gx, lanes) / float(channels);
  float* const to = dx + pixel * channels;
  for (int c = first; c < end; c += 4 * lanes) {
    const Numbers<4> v = load_quad<Vectors>(from, c, channels), w = load_quad<Vectors>(weight, c, channels);
    Numbers<4> g = load_quad<Vectors>(gradient, c, channels);
#pragma unroll
    for (int k = 0; k < 4; ++k) g.v[k] = (g.v[k] * w.v[k] - mean_g - (v.v[k] - mean) * inverse * mean_gx) * inverse;
    if (accumulate) {
      const Numbers<4> old = load_quad<Vectors>(to, c, channels);
#pragma unroll
      for (int k = 0; k < 4; ++k) g.v[k] += old.v[k];
    }
    store_quad<Vectors>(to, c, channels, g);
  }
}

/// Sum of dy and sum of dy * (x - mean) * inverse_std over the pixels.
struct LayerNormTerm {
  const float *x, *dy, *numbers;
  bool aligned() const { return aligned16(x, dy); }
  template <bool Vectors>
  struct Column {
    const float *x, *dy, *numbers;
    int c, channels;
    STRATA_DEVICE_MEMBER Column(const LayerNormTerm& term, int first, int count)
        : x(term.x), dy(term.dy), numbers(term.numbers), c(first), channels(count) {}
    STRATA_DEVICE_MEMBER void add(std::int64_t row, Numbers<4> (&sums)[2]) const {
      const Numbers<4> v = load_quad<Vectors>(x + row * channels, c, channels);
      const Numbers<4> g = load_quad<Vectors>(dy + row * channels, c, channels);
      const float mean = numbers[2 * row], inverse = numbers[2 * row + 1];
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        sums[0].v[k] += g.v[k];
        sums[1].v[k] += g.v[k] * ((v.v[k] - mean) * inverse);
      }
    }
  };
};

inline cudaError_t layer_norm_forward(cudaStream_t stream, std::int64_t pixels, int channels, float eps, const float* x,
                                      const float* weight, const float* bias, float* y, float* numbers) {
  const int lanes = layer_norm_lanes(channels);
  const dim3 grid(unsigned(ceil_div(pixels, layer_norm_block / lanes))), block(layer_norm_block);
  return channels % 4 == 0 && aligned16(x, weight, bias, y)
             ? launch<&layer_norm_kernel<true>>(grid, block, 0, stream, pixels, channels, lanes, eps, x, weight, bias,
                                                y, numbers)
             : launch<&layer_norm_kernel<false>>(grid, block, 0, stream, pixels, channels, lanes, eps, x, weight, bias,
                                                 y, numbers);
}

inline cudaError_t layer_norm_backward_input(cudaStream_t stream, std::int64_t pixels, int channels, const float* x,
                                             const float* numbers, const float* weight, const float* dy,
                                             GradientTarget<> dx) {
  const int lanes = layer_norm_lanes(channels);
  const dim3 grid(unsigned(ceil_div(pixels, layer_norm_block / lanes))), block(layer_norm_block);
  return channels % 4 == 0 && aligned16(x, weight, dy, dx.data)
             ? launch<&layer_norm_input_kernel<true>>(grid, block, 0, stream, pixels, channels, lanes, x, numbers,
                                                      weight, dy, dx.data, dx.accumulate)
             : launch<&layer_norm_input_kernel<false>>(grid, block, 0, stream, pixels, channels, lanes, x, numbers,
                                                       weight, dy, dx.data, dx.accumulate);
}

}}}  // namespace strata::STRATA_ABI::cuda
