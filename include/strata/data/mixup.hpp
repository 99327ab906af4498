// Batches whose samples are mixed with one another: mixup and cutmix, as torchvision's v2.MixUp and v2.CutMix do it:
// each sample with the one before it in the batch, the first with the last, all in the same proportion.
//
//     #include <strata/data/mixup.hpp>                 // not part of strata.hpp
//     st::Rng rng(seed, std::uint32_t(epoch), std::uint32_t(batch));            // the batch's own: the same when it is
//     resumed const auto mixed = st::mixup(input, labels, rng, {.alpha = 0.2f}); const auto y = net(pass, mixed.input);
//     const auto loss = mixed.first_share * cross_entropy(y, mixed.first) + (1 - mixed.first_share) * cross_entropy(y,
//     mixed.second);
//
// H. Zhang et al., mixup: Beyond empirical risk minimization, 2018. S. Yun et al., CutMix, 2019.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata::inline STRATA_ABI {

struct MixOptions {
  float alpha = 1;  ///< the share of a sample is drawn from Beta(alpha, alpha)
};

/// A batch of which each sample is of two: its own class counts by first_share, the other's by the rest.
template <int C>
struct MixedBatch {
  Image<C> input;
  Tensor<Label> first, second;
  float first_share = 1;
};

namespace detail {

/// Gamma(alpha, 1) by G. Marsaglia and W. W. Tsang, A simple method for generating gamma variables, 2000.
inline double random_gamma(double alpha, Rng& rng) {
  double boost = 1;
  if (alpha < 1) {
    boost = std::pow((double(rng.bits()) + 0.5) * 0x1p-32, 1 / alpha);
    alpha += 1;
  }
  const double d = alpha - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  while (true) {
    const auto x = double(rng.normal());
    const double v = 1 + rounded(c * x);
    if (v <= 0) continue;
    const double cube = rounded(rounded(v * v) * v), u = (double(rng.bits()) + 0.5) * 0x1p-32;
    if (std::log(u) < rounded(0.5 * x * x) + rounded(d * (1 - cube + std::log(cube)))) return boost * d * cube;
  }
}

/// Beta(alpha, alpha).
inline double random_beta(const char* what, double alpha, Rng& rng) {
  if (!(alpha > 0) || !std::isfinite(alpha))
    throw ValueError(concat(what, ": got .alpha = ", alpha, ", wanted above 0"));
  const double a = random_gamma(alpha, rng);
  const double b = random_gamma(alpha, rng);
  return a + b > 0 ? a / (a + b) : 0.5;  // both of a tiny alpha may round to 0
}

inline void check_labels(const char* what, std::int64_t n, const Tensor<Label>& labels) {
  if (labels.shape().rank() != 1 || labels.size() != n)
    throw ShapeError(concat(what, ": got labels ", labels.shape().str(), " for ", n, " images"));
}

/// The labels of the samples before each.
inline Tensor<Label> rolled(const Tensor<Label>& labels) {
  Tensor<Label> out(labels.shape());
  for (std::int64_t i = 0; i < labels.size(); ++i)
    out.data()[i] = labels.data()[(i + labels.size() - 1) % labels.size()];
  return out;
}

template <int C>
Image<C> mixed_images(const Image<C>& images, float share) {
  Image<C> out(images.n(), images.h(), images.w());
  const std::int64_t size = images.h() * images.w() * C, n = images.n();
  for (std::int64_t k = 0; k < n; ++k) {
    const float *own = images.data() + k * size, *other = images.data() + (k + n - 1) % n * size;
    for (std::int64_t i = 0; i < size; ++i)
      out.data()[k * size + i] = rounded(share * own[i]) + rounded((1 - share) * other[i]);
  }
  return out;
}

}  // namespace detail

/// share * image + (1 - share) * the image before it. Throws ShapeError for labels that do not fit.
template <int C>
MixedBatch<C> mixup(const Image<C>& images, const Tensor<Label>& labels, Rng& rng, const MixOptions& options = {}) {
  detail::check_labels("mixup", images.n(), labels);
  const auto share = float(detail::random_beta("mixup", double(options.alpha), rng));
  return {detail::mixed_images(images, share), labels.clone(), detail::rolled(labels), share};
}
/// Of images and what they should become, both mixed alike: for restoration.
template <int C, int D>
Pair<Image<C>, Image<D>> mixup(const Image<C>& inputs, const Image<D>& targets, Rng& rng,
                               const MixOptions& options = {}) {
  if (inputs.n() != targets.n())
    throw ShapeError(concat("mixup: got ", inputs.n(), " inputs and ", targets.n(), " targets"));
  const auto share = float(detail::random_beta("mixup", double(options.alpha), rng));
  return {detail::mixed_images(inputs, share), detail::mixed_images(targets, share)};
}

/// A rectangle of each image is that of the image before it; first_share is the share of the area that stays.
template <int C>
MixedBatch<C> cutmix(const Image<C>& images, const Tensor<Label>& labels, Rng& rng, const MixOptions& options = {}) {
  detail::check_labels("cutmix", images.n(), labels);
  const std::int64_t h = images.h(), w = images.w(), n = images.n(), size = h * w * C;
  if (images.empty()) throw ShapeError("cutmix: the images are empty");
  const double half = 0.5 * std::sqrt(1 - detail::random_beta("cutmix", double(options.alpha), rng));
  const std::int64_t x = rng.below(std::uint32_t(w));
  const std::int64_t y = rng.below(std::uint32_t(h));
  const auto half_w = std::int64_t(half * double(w)), half_h = std::int64_t(half * double(h));
  const std::int64_t left = std::max<std::int64_t>(x - half_w, 0), right = std::min(x + half_w, w);
  const std::int64_t top = std::max<std::int64_t>(y - half_h, 0), bottom = std::min(y + half_h, h);
  MixedBatch<C> out{images.clone(), labels.clone(), detail::rolled(labels),
                    float(1 - double((right - left) * (bottom - top)) / double(h * w))};
  for (std::int64_t k = 0; k < n; ++k)
    for (std::int64_t row = top; row < bottom; ++row) {
      const std::int64_t at = (row * w + left) * C;
      std::copy_n(images.data() + (k + n - 1) % n * size + at, (right - left) * C, out.input.data() + k * size + at);
    }
  return out;
}

}  // namespace strata::inline STRATA_ABI
