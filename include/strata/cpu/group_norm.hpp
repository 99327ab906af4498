// Normalisation of every image by itself (Wu and He, 2018): the channels of a group share one mean and one variance
// over all pixels. One channel a group is instance normalisation. N,H,W,C images; float and double.
//
// What is left for the pixels is the arithmetic of batch normalisation with numbers of each image's own, so its kernels
// do it.
#pragma once

#include <cmath>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/batch_norm.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/math/group_norm_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

/// f(image) for every image: a task each where there are enough of them, else one after another with all threads
/// inside.
template <class F>
void each_image(std::int64_t n, F&& f) {
  if (n >= num_threads())
    parallel_for(n, f);
  else
    for (std::int64_t i = 0; i < n; ++i) f(i);
}

}  // namespace detail

/// y = (x - mean) / sqrt(variance + eps) * weight + bias, by group; weight and bias may be nullptr: 1 and 0. `numbers`,
/// of p.numbers(), is kept for the gradient.
template <class T>
void group_norm_forward(const GroupNormProblem& p, const T* x, const T* weight, const T* bias, T* y, T* numbers) {
  const int group = p.channels / p.groups;
  detail::each_image(p.n, [&](std::int64_t n) {
    const std::int64_t first = n * p.pixels * p.channels;
    Scratch<double> memory(std::size_t(2 * p.channels));
    double *const mean = memory.data(), *const variance = memory.data() + p.channels;
    batch_norm_statistics(p.pixels, p.channels, x + first, mean, variance);
    T *const scale = numbers + n * 4 * p.channels, *const shift = scale + p.channels;
    T *const means = shift + p.channels, *const inverse_std = means + p.channels;
    for (int g = 0; g < p.channels; g += group) {
      double m = 0, v = 0;
      for (int c = g; c < g + group; ++c) m += mean[c] / group;
      for (int c = g; c < g + group; ++c) v += (variance[c] + (mean[c] - m) * (mean[c] - m)) / group;
      const double inverse = 1 / std::sqrt(v + p.eps);
      for (int c = g; c < g + group; ++c) {
        const double factor = inverse * (weight != nullptr ? double(weight[c]) : 1.0);
        scale[c] = T(factor);
        shift[c] = T((bias != nullptr ? double(bias[c]) : 0.0) - m * factor);
        means[c] = T(m);
        inverse_std[c] = T(inverse);
      }
    }
    batch_norm_apply(p.pixels, p.channels, x + first, scale, shift, y + first, Activation::none);
  });
}

/// dx (+)= the gradient for x (nullptr: not wanted), and dweight, dbias (+)= those for weight and bias (nullptr: there
/// are none). `numbers` is what the forward kept.
template <class T>
void group_norm_backward(const GroupNormProblem& p, const T* x, const T* numbers, const T* dy, T* dx, bool accumulate,
                         T* dweight, bool accumulate_weight, T* dbias, bool accumulate_bias) {
  const int channels = p.channels, group = channels / p.groups;
  Scratch<double> memory(std::size_t(p.n * 2 * channels));  // for each image: sums of dy, sums of dy * (x - mean)
  detail::each_image(p.n, [&](std::int64_t n) {
    const std::int64_t first = n * p.pixels * channels;
    const T *const scale = numbers + n * 4 * channels, *const shift = scale + channels;
    const T *const means = shift + channels, *const inverse_std = means + channels;
    double *const sum_g = memory.data() + n * 2 * channels, *const sum_gx = sum_g + channels;
    batch_norm_backward_sums(p.pixels, channels, x + first, dy + first, scale, shift, means, Activation::none, sum_g,
                             sum_gx);
    if (dx == nullptr) return;
    Scratch<T> coefficients(std::size_t(2 * channels));
    T *const slope = coefficients.data(), *const offset = slope + channels;
    const double count = double(p.pixels) * group;
    for (int g = 0; g < channels; g += group) {
      double g_sum = 0, gx_sum = 0;  // of the gradient for (x - mean) * inverse_std, times inverse_std
      for (int c = g; c < g + group; ++c) g_sum += double(scale[c]) * sum_g[c], gx_sum += double(scale[c]) * sum_gx[c];
      for (int c = g; c < g + group; ++c) {
        const double inverse = double(inverse_std[c]);
        slope[c] = T(-inverse * inverse * gx_sum / count);
        offset[c] = T(-g_sum / count);
      }
    }
    const NormGradient<T> gradient{
        .x = x + first, .affine = {scale, shift, Activation::none}, .mean = means, .slope = slope, .offset = offset};
    batch_norm_backward_input(p.pixels, channels, gradient, dy + first, dx + first, accumulate);
  });
  for (int c = 0; c < channels; ++c) {
    double for_weight = 0, for_bias = 0;
    for (std::int64_t n = 0; n < p.n; ++n) {
      const double* const sums = memory.data() + n * 2 * channels;
      for_bias += sums[c];
      for_weight += sums[channels + c] * double(numbers[n * 4 * channels + 3 * channels + c]);
    }
    if (dweight != nullptr) dweight[c] = (accumulate_weight ? dweight[c] : T(0)) + T(for_weight);
    if (dbias != nullptr) dbias[c] = (accumulate_bias ? dbias[c] : T(0)) + T(for_bias);
  }
}

}}}  // namespace strata::STRATA_ABI::cpu
