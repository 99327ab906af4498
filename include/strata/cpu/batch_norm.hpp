// Batch normalisation over N,H,W,C activations, with an optional ReLU behind it (Ioffe and Szegedy, 2015):
//
//     y = act(x * scale + shift),   scale = weight / sqrt(variance + eps),   shift = bias - mean * scale
//
// `pixels` counts n*h*w. Statistics are taken in chunks of pixels, mean and squared deviations from it in two passes
// over a chunk that is still in cache, then merged in order in double (Chan et al., 1979): one pass over memory, no
// cancellation, and the same bits for any number of threads.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/activation.hpp"
#include "strata/math/channel_affine.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

inline std::int64_t chunk_pixels(int channels) { return std::clamp<std::int64_t>((1 << 15) / channels, 16, 4096); }

/// Adds the columns of `rows` rows of `count` numbers, in order, in double.
template <class T>
void sum_rows(const T* rows, std::int64_t row_count, std::int64_t count, double* out) {
  std::fill_n(out, count, 0.0);
  for (std::int64_t r = 0; r < row_count; ++r)
    for (std::int64_t i = 0; i < count; ++i) out[i] += double(rows[r * count + i]);
}

/// Count, mean and sum of squared deviations of a part of the pixels.
struct PartialStatistics {
  double count, mean, squares;
};

/// Mean and biased variance of every channel from those of `parts` parts, merged in order in double (Chan et al.,
/// 1979).
template <class Part>
void merge_statistics(std::int64_t parts, int channels, const ChannelStatistics& out, Part&& part) {
  for (int c = 0; c < channels; ++c) {
    PartialStatistics sum{0, 0, 0};
    for (std::int64_t index = 0; index < parts; ++index) {
      const PartialStatistics next = part(index, c);
      if (next.count == 0) continue;
      const double count = sum.count + next.count, delta = next.mean - sum.mean;
      sum.squares += next.squares + delta * delta * sum.count * next.count / count;
      sum.mean += delta * next.count / count;
      sum.count = count;
    }
    out.mean[c] = sum.mean;
    out.variance[c] = std::max(0.0, sum.squares / sum.count);
  }
}

}  // namespace detail

/// mean[c] and biased variance[c] over all pixels.
template <class T>
void batch_norm_statistics(std::int64_t pixels, int channels, const T* x, double* mean, double* variance) {
  const std::int64_t chunk = detail::chunk_pixels(channels), chunks = (pixels + chunk - 1) / chunk;
  Scratch<T> partial(std::size_t(chunks * 2 * channels));  // for each chunk: means, then sums of squared deviations
  parallel_for(chunks, [&](std::int64_t index) {
    const std::int64_t begin = index * chunk, count = std::min(chunk, pixels - begin);
    T* means = partial.data() + index * 2 * channels;
    simd::over_vectors<T>(channels, [&]<class V>(int c) {
      const T* column = x + begin * channels + c;
      V total{};
      for (std::int64_t p = 0; p < count; ++p) total += simd::load<V>(column + p * channels);
      const V center = total / (V{} + T(count));
      V squares{};
      for (std::int64_t p = 0; p < count; ++p) {
        const V d = simd::load<V>(column + p * channels) - center;
        squares += d * d;
      }
      simd::store<V>(means + c, center);
      simd::store<V>(means + channels + c, squares);
    });
  });
  detail::merge_statistics(chunks, channels, {mean, variance}, [&](std::int64_t index, int c) {
    const T* from = partial.data() + index * 2 * channels + c;
    return detail::PartialStatistics{double(std::min(chunk, pixels - index * chunk)), double(from[0]),
                                     double(from[channels])};
  });
}

/// y = act(x * scale + shift), channel by channel. x and y may be the same.
template <class T>
void batch_norm_apply(std::int64_t pixels, int channels, const T* x, const T* scale, const T* shift, T* y,
                      Activation activation) {
  const std::int64_t chunk = detail::chunk_pixels(channels);
  parallel_ranges(pixels, chunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      simd::over_vectors<T>(channels, [&]<class V>(int c) {
        V value = simd::load<V>(x + p * channels + c) * simd::load<V>(scale + c) + simd::load<V>(shift + c);
        if (activation == Activation::relu) value = value < V{} ? V{} : value;  // NaN stays NaN
        simd::store<V>(y + p * channels + c, value);
      });
  });
}

/// The sums over all pixels that the gradients are made of; g is dy where the activation let the value through, else 0:
/// sum_g[c] = sum of g, sum_gx[c] = sum of g * (x - mean).
template <class T>
void batch_norm_backward_sums(std::int64_t pixels, int channels, const T* x, const T* dy, const T* scale,
                              const T* shift, const T* mean, Activation activation, double* sum_g, double* sum_gx) {
  const std::int64_t chunk = detail::chunk_pixels(channels), chunks = (pixels + chunk - 1) / chunk;
  Scratch<T> partial(std::size_t(chunks * 2 * channels));
  parallel_for(chunks, [&](std::int64_t index) {
    const std::int64_t begin = index * chunk, count = std::min(chunk, pixels - begin);
    T* sums = partial.data() + index * 2 * channels;
    simd::over_vectors<T>(channels, [&]<class V>(int c) {
      const T *xs = x + begin * channels + c, *gs = dy + begin * channels + c;
      const V center = simd::load<V>(mean + c), a = simd::load<V>(scale + c), b = simd::load<V>(shift + c);
      V total{}, products{};
      for (std::int64_t p = 0; p < count; ++p) {
        const V value = simd::load<V>(xs + p * channels);
        V g = simd::load<V>(gs + p * channels);
        if (activation == Activation::relu) g = value * a + b > V{} ? g : V{};
        total += g;
        products += g * (value - center);
      }
      simd::store<V>(sums + c, total);
      simd::store<V>(sums + channels + c, products);
    });
  });
  Scratch<double> both(std::size_t(2 * channels));
  detail::sum_rows(partial.data(), chunks, 2 * channels, both.data());
  std::copy_n(both.data(), channels, sum_g);
  std::copy_n(both.data() + channels, channels, sum_gx);
}

/// dx = or += scale * g + (x - mean) * slope + offset, from the gradient dy behind the activation (NormGradient has the
/// formula). dx and dy may be the same.
template <class T>
void batch_norm_backward_input(std::int64_t pixels, int channels, const NormGradient<T>& norm, const T* dy, T* dx,
                               bool accumulate) {
  const std::int64_t chunk = detail::chunk_pixels(channels);
  parallel_ranges(pixels, chunk, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      simd::over_vectors<T>(channels, [&]<class V>(int c) {
        const V value = simd::load<V>(norm.x + p * channels + c), a = simd::load<V>(norm.affine.scale + c);
        V g = simd::load<V>(dy + p * channels + c);
        if (norm.affine.activation == Activation::relu)
          g = value * a + simd::load<V>(norm.affine.shift + c) > V{} ? g : V{};
        V result = a * g + (value - simd::load<V>(norm.mean + c)) * simd::load<V>(norm.slope + c) +
                   simd::load<V>(norm.offset + c);
        if (norm.x_rectified) result = value > V{} ? result : V{};
        if (accumulate) result += simd::load<V>(dx + p * channels + c);
        simd::store<V>(dx + p * channels + c, result);
      });
  });
}

}}}  // namespace strata::STRATA_ABI::cpu
