// The random changes that classifiers and segmenters are trained with, by torchvision's names, formulas and defaults.
//
//     #include <strata/data/augment.hpp>               // not part of strata.hpp
//     st::Map seen(photos, [](st::LabelledSample<3> sample, st::Rng& rng) {
//       sample.input = st::random_resized_crop(sample.input, 224, rng);
//       sample.input = st::random_horizontal_flip(sample.input, rng);
//       sample.input = st::color_jitter(sample.input, rng,
//                                       {.brightness = 0.4f, .contrast = 0.4f, .saturation = 0.4f, .hue = 0.1f});
//       sample.input = st::random_erasing(sample.input, rng, {.p = 0.25f});
//       return sample;
//     });
//     st::Map pairs(masks, [](auto pair, st::Rng& rng) { return st::random_resized_crop(pair, 256, rng); });  // both
//
// What is drawn comes from the sample's own generator, keyed by (seed, epoch, index): the same for any number of
// workers. Every function returns a new image and leaves its argument alone. Of a Pair the input is interpolated and
// the target, a mask, is not: its pixels keep their values. Images are in [0, 1], and the colour functions clamp to it.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <optional>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"
#include "strata/data/sample.hpp"
#include "strata/data/transforms.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class Interpolation { nearest, bilinear };

namespace detail {

/// The pixels that result i of `to` is made of, of `from` pixels: a triangle of the half-width of one pixel, or of one
/// result where the image becomes smaller, and cut off at the border (PIL's, and torchvision's with antialias).
struct TriangleWeights {
  TriangleWeights(std::int64_t from, std::int64_t to) {
    const double scale = double(from) / double(to), support = std::max(scale, 1.0);
    for (std::int64_t i = 0; i < to; ++i) {
      const double centre = rounded(scale * (double(i) + 0.5));
      const auto first = std::max<std::int64_t>(0, std::int64_t(centre - support + 0.5));
      const auto last = std::min(from, std::int64_t(centre + support + 0.5));
      begins.push_back(weights.size());
      firsts.push_back(first);
      double sum = 0;
      for (std::int64_t k = first; k < last; ++k) {
        const double weight = std::max(0.0, 1 - std::abs((double(k) - centre + 0.5) / support));
        weights.push_back(weight);
        sum += weight;
      }
      for (std::size_t k = begins.back(); k < weights.size(); ++k) weights[k] /= sum;
    }
    begins.push_back(weights.size());
  }
  std::vector<double> weights;
  std::vector<std::size_t> begins;
  std::vector<std::int64_t> firsts;
};

inline void check_probability(const char* what, float p) {
  if (!(p >= 0 && p <= 1)) throw ValueError(concat(what, ": got p ", p, ", wanted 0 to 1"));
}

template <int C, int D>
void check_same_size(const char* what, const Image<C>& input, const Image<D>& target) {
  if (input.n() != target.n() || input.h() != target.h() || input.w() != target.w())
    throw ShapeError(concat(what, ": the input is ", input.shape().str(), " and the target ", target.shape().str(),
                            "; both are to be changed alike, so they must have the same rows and columns"));
}

}  // namespace detail

/// The image at h x w pixels, as torchvision's resize(antialias=True), or the pixels that its own middles lie in
/// (NEAREST_EXACT). Throws ShapeError for an empty image and extents below 1.
template <int C>
Image<C> resize(const Image<C>& image, std::int64_t h, std::int64_t w,
                Interpolation interpolation = Interpolation::bilinear) {
  if (image.empty() || h < 1 || w < 1)
    throw ShapeError(concat("resize: cannot make ", h, "x", w, " pixels of an image of ", image.h(), "x", image.w()));
  Image<C> out(image.n(), h, w);
  if (interpolation == Interpolation::nearest) {
    for (std::int64_t n = 0; n < image.n(); ++n)
      for (std::int64_t y = 0; y < h; ++y)
        for (std::int64_t x = 0; x < w; ++x)
          std::copy_n(&image(n, 0, (2 * y + 1) * image.h() / (2 * h), (2 * x + 1) * image.w() / (2 * w)), C,
                      &out(n, 0, y, x));
    return out;
  }
  const detail::TriangleWeights down(image.h(), h), across(image.w(), w);
  std::vector<double> line(std::size_t(image.w() * C));
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = 0; y < h; ++y) {
      std::fill(line.begin(), line.end(), 0.0);
      for (std::size_t k = down.begins[std::size_t(y)]; k < down.begins[std::size_t(y + 1)]; ++k) {
        const float* from =
            &image(n, 0, down.firsts[std::size_t(y)] + std::int64_t(k - down.begins[std::size_t(y)]), 0);
        for (std::size_t i = 0; i < line.size(); ++i) line[i] += detail::rounded(down.weights[k] * double(from[i]));
      }
      for (std::int64_t x = 0; x < w; ++x) {
        const std::size_t begin = across.begins[std::size_t(x)], end = across.begins[std::size_t(x + 1)];
        for (int c = 0; c < C; ++c) {
          double sum = 0;
          for (std::size_t k = begin; k < end; ++k)
            sum += detail::rounded(
                across.weights[k] *
                line[std::size_t(across.firsts[std::size_t(x)] + std::int64_t(k - begin)) * C + std::size_t(c)]);
          out(n, c, y, x) = float(sum);
        }
      }
    }
  return out;
}

struct RandomResizedCropOptions {
  double scale_min = 0.08, scale_max = 1;           ///< share of the image's area
  double ratio_min = 3.0 / 4, ratio_max = 4.0 / 3;  ///< width over height
};

/// A part of the image of random area and shape: where one lies. Drawn as torchvision does: ten tries, then the middle.
struct CropPlace {
  std::int64_t y = 0, x = 0, h = 0, w = 0;
};
inline CropPlace random_crop_place(std::int64_t h, std::int64_t w, Rng& rng,
                                   const RandomResizedCropOptions& options = {}) {
  if (!(options.scale_min > 0 && options.scale_min <= options.scale_max && options.scale_max <= 1))
    throw ValueError(concat("random_resized_crop: got a scale from ", options.scale_min, " to ", options.scale_max,
                            ", wanted 0 < min <= max <= 1"));
  if (!(options.ratio_min > 0 && options.ratio_min <= options.ratio_max && std::isfinite(options.ratio_max)))
    throw ValueError(concat("random_resized_crop: got a ratio from ", options.ratio_min, " to ", options.ratio_max,
                            ", wanted 0 < min <= max"));
  if (h < 1 || w < 1) throw ShapeError("random_resized_crop: the image is empty");
  const double area = double(h) * double(w), low = std::log(options.ratio_min), high = std::log(options.ratio_max);
  for (int tries = 0; tries < 10; ++tries) {
    const double part =
        area * (options.scale_min + detail::rounded((options.scale_max - options.scale_min) * double(rng.uniform())));
    const double ratio = std::exp(low + detail::rounded((high - low) * double(rng.uniform())));
    const auto wide = std::int64_t(std::llround(std::sqrt(part * ratio))),
               tall = std::int64_t(std::llround(std::sqrt(part / ratio)));
    if (wide < 1 || tall < 1 || wide > w || tall > h) continue;
    const std::int64_t y = rng.below(std::uint32_t(h - tall + 1));
    const std::int64_t x = rng.below(std::uint32_t(w - wide + 1));
    return {y, x, tall, wide};
  }
  std::int64_t tall = h, wide = w;
  if (double(w) / double(h) < options.ratio_min)
    tall = std::clamp<std::int64_t>(std::llround(double(w) / options.ratio_min), 1, h);
  else if (double(w) / double(h) > options.ratio_max)
    wide = std::clamp<std::int64_t>(std::llround(double(h) * options.ratio_max), 1, w);
  return {(h - tall) / 2, (w - wide) / 2, tall, wide};
}

/// Such a part at size x size pixels. All images of a batch alike.
template <int C>
Image<C> random_resized_crop(const Image<C>& image, std::int64_t size, Rng& rng,
                             const RandomResizedCropOptions& options = {}) {
  const CropPlace at = random_crop_place(image.h(), image.w(), rng, options);
  return resize(crop(image, at.y, at.x, at.h, at.w), size, size);
}
template <int C, int D>
Pair<Image<C>, Image<D>> random_resized_crop(const Pair<Image<C>, Image<D>>& pair, std::int64_t size, Rng& rng,
                                             const RandomResizedCropOptions& options = {}) {
  detail::check_same_size("random_resized_crop", pair.input, pair.target);
  const CropPlace at = random_crop_place(pair.input.h(), pair.input.w(), rng, options);
  return {resize(crop(pair.input, at.y, at.x, at.h, at.w), size, size),
          resize(crop(pair.target, at.y, at.x, at.h, at.w), size, size, Interpolation::nearest)};
}

/// transforms.hpp's random_crop and random_horizontal_flip of an image and a mask of another number of channels.
template <int C, int D>
Pair<Image<C>, Image<D>> random_crop(const Pair<Image<C>, Image<D>>& pair, std::int64_t size, Rng& rng) {
  detail::check_same_size("random_crop", pair.input, pair.target);
  if (size < 1 || size > pair.input.h() || size > pair.input.w())
    throw ShapeError(
        concat("random_crop: wanted ", size, "x", size, " of an image of ", pair.input.h(), "x", pair.input.w()));
  const std::int64_t y = rng.below(std::uint32_t(pair.input.h() - size + 1));
  const std::int64_t x = rng.below(std::uint32_t(pair.input.w() - size + 1));
  return {crop(pair.input, y, x, size, size), crop(pair.target, y, x, size, size)};
}
template <int C, int D>
Pair<Image<C>, Image<D>> random_horizontal_flip(const Pair<Image<C>, Image<D>>& pair, Rng& rng, float p = 0.5f) {
  detail::check_probability("random_horizontal_flip", p);
  const int k = rng.uniform() < p ? 4 : 0;
  return {dihedral(pair.input, k), dihedral(pair.target, k)};
}

/// The image turned about its middle, counter-clockwise for degrees above 0, in its own extents; what comes from beyond
/// the border is `fill`. torchvision's rotate.
template <int C>
Image<C> rotate(const Image<C>& image, double degrees, Interpolation interpolation = Interpolation::nearest,
                float fill = 0) {
  if (!std::isfinite(degrees)) throw ValueError(concat("rotate: got ", degrees, " degrees"));
  const double angle = degrees * std::numbers::pi / 180, cosine = std::cos(angle), sine = std::sin(angle);
  const std::int64_t h = image.h(), w = image.w();
  Image<C> out(image.n(), h, w);
  const auto inside = [&](std::int64_t y, std::int64_t x) { return y >= 0 && y < h && x >= 0 && x < w; };
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t x = 0; x < w; ++x) {
        const double across = double(x) - double(w - 1) / 2, down = double(y) - double(h - 1) / 2;
        const double from_x = detail::rounded(cosine * across) - detail::rounded(sine * down) + double(w - 1) / 2;
        const double from_y = detail::rounded(sine * across) + detail::rounded(cosine * down) + double(h - 1) / 2;
        float* to = &out(n, 0, y, x);
        if (interpolation == Interpolation::nearest) {
          const auto row = std::int64_t(std::nearbyint(from_y)), column = std::int64_t(std::nearbyint(from_x));
          if (inside(row, column))
            std::copy_n(&image(n, 0, row, column), C, to);
          else
            std::fill_n(to, C, fill);
          continue;
        }
        const auto top = std::int64_t(std::floor(from_y)), left = std::int64_t(std::floor(from_x));
        const double part_y = from_y - double(top), part_x = from_x - double(left);
        for (int c = 0; c < C; ++c) {
          double sum = 0;
          for (int k = 0; k < 4; ++k) {
            const std::int64_t row = top + k / 2, column = left + k % 2;
            const double weight = (k / 2 ? part_y : 1 - part_y) * (k % 2 ? part_x : 1 - part_x);
            sum += detail::rounded(weight * double(inside(row, column) ? image(n, c, row, column) : fill));
          }
          to[c] = float(sum);
        }
      }
  return out;
}

/// rotate by degrees drawn from [-degrees, degrees].
template <int C>
Image<C> random_rotation(const Image<C>& image, float degrees, Rng& rng,
                         Interpolation interpolation = Interpolation::nearest, float fill = 0) {
  return rotate(image, double(rng.uniform(-degrees, degrees)), interpolation, fill);
}
/// The target's nearest pixels, and `fill` beyond it, of which mask_fill is the target's.
template <int C, int D>
Pair<Image<C>, Image<D>> random_rotation(const Pair<Image<C>, Image<D>>& pair, float degrees, Rng& rng,
                                         Interpolation interpolation = Interpolation::bilinear, float fill = 0,
                                         float mask_fill = 0) {
  detail::check_same_size("random_rotation", pair.input, pair.target);
  const auto drawn = double(rng.uniform(-degrees, degrees));
  return {rotate(pair.input, drawn, interpolation, fill),
          rotate(pair.target, drawn, Interpolation::nearest, mask_fill)};
}

namespace detail {

inline float grey_of(const float* rgb) {
  return rounded(0.2989f * rgb[0]) + rounded(0.587f * rgb[1]) + rounded(0.114f * rgb[2]);
}

/// to = clamp(factor * pixel + (1 - factor) * other(pixel)).
template <class Other>
Image<3> blend(const char* what, const Image<3>& image, float factor, Other&& other) {
  if (!(factor >= 0) || !std::isfinite(factor))
    throw ValueError(concat(what, ": got the factor ", factor, ", wanted 0 or more"));
  Image<3> out(image.n(), image.h(), image.w());
  for (std::int64_t i = 0; i < image.size(); i += 3) {
    const float grey = other(image.data() + i);
    for (int c = 0; c < 3; ++c)
      out.data()[i + c] = std::clamp(rounded(factor * image.data()[i + c]) + rounded((1 - factor) * grey), 0.0f, 1.0f);
  }
  return out;
}

}  // namespace detail

/// 0 gives black, 1 the image, 2 twice the brightness.
inline Image<3> adjust_brightness(const Image<3>& image, float factor) {
  return detail::blend("adjust_brightness", image, factor, [](const float*) { return 0.0f; });
}
/// 0 gives the mean grey of all of the image, 1 the image.
inline Image<3> adjust_contrast(const Image<3>& image, float factor) {
  Image<3> out(image.n(), image.h(), image.w());
  const std::int64_t size = image.h() * image.w() * 3;
  for (std::int64_t n = 0; n < image.n(); ++n) {
    double sum = 0;
    for (std::int64_t i = 0; i < size; i += 3) sum += double(detail::grey_of(image.data() + n * size + i));
    const auto mean = float(sum / double(std::max<std::int64_t>(size / 3, 1)));
    const Image<3> one = detail::blend("adjust_contrast", select(image, n), factor, [&](const float*) { return mean; });
    std::copy_n(one.data(), size, out.data() + n * size);
  }
  return out;
}
/// 0 gives grey, 1 the image.
inline Image<3> adjust_saturation(const Image<3>& image, float factor) {
  return detail::blend("adjust_saturation", image, factor, [](const float* rgb) { return detail::grey_of(rgb); });
}
/// The hue moved by `factor` of the circle, -0.5 to 0.5.
inline Image<3> adjust_hue(const Image<3>& image, float factor) {
  if (!(factor >= -0.5f && factor <= 0.5f))
    throw ValueError(concat("adjust_hue: got ", factor, ", wanted -0.5 to 0.5"));
  Image<3> out(image.n(), image.h(), image.w());
  for (std::int64_t i = 0; i < image.size(); i += 3) {
    const float r = image.data()[i], g = image.data()[i + 1], b = image.data()[i + 2];
    const float most = std::max({r, g, b}), least = std::min({r, g, b}), range = most - least;
    if (!(range > 0)) {  // grey has no hue
      std::copy_n(image.data() + i, 3, out.data() + i);
      continue;
    }
    float hue = most == r ? (g - b) / range : most == g ? 2 + (b - r) / range : 4 + (r - g) / range;
    hue = hue / 6 + factor;
    hue = 6 * (hue - std::floor(hue));
    const float saturation = range / most, whole = std::floor(hue), part = hue - whole;
    const auto clamped = [&](float v) { return std::clamp(v, 0.0f, 1.0f); };
    const float p = clamped(most * (1 - saturation)), q = clamped(most * (1 - detail::rounded(saturation * part)));
    const float t = clamped(most * (1 - detail::rounded(saturation * (1 - part))));
    const std::array<std::array<float, 3>, 6> sectors{
        {{most, t, p}, {q, most, p}, {p, most, t}, {p, q, most}, {t, p, most}, {most, p, q}}};
    const auto& rgb = sectors[std::size_t(int(whole) % 6)];
    std::copy(rgb.begin(), rgb.end(), out.data() + i);
  }
  return out;
}

struct ColorJitterOptions {
  float brightness = 0, contrast = 0, saturation = 0;  ///< factors are drawn from [max(0, 1 - x), 1 + x]
  float hue = 0;                                       ///< drawn from [-hue, hue], at most 0.5
};

/// Brightness, contrast, saturation and hue changed at random, in a random order.
inline Image<3> color_jitter(const Image<3>& image, Rng& rng, const ColorJitterOptions& options) {
  for (const float most : {options.brightness, options.contrast, options.saturation, options.hue})
    if (!(most >= 0) || !std::isfinite(most))
      throw ValueError(concat("color_jitter: got ", most, ", wanted 0 or more"));
  if (options.hue > 0.5f) throw ValueError(concat("color_jitter: got .hue = ", options.hue, ", wanted at most 0.5"));
  std::array<int, 4> order{0, 1, 2, 3};
  for (std::uint32_t i = 4; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  std::array<float, 4> factors{};
  const std::array<float, 3> ranges{options.brightness, options.contrast, options.saturation};
  for (std::size_t i = 0; i < 3; ++i) factors[i] = rng.uniform(std::max(0.0f, 1 - ranges[i]), 1 + ranges[i]);
  factors[3] = rng.uniform(-options.hue, options.hue);
  Image<3> out = image;
  for (const int what : order) {
    if (what == 0 && options.brightness > 0) out = adjust_brightness(out, factors[0]);
    if (what == 1 && options.contrast > 0) out = adjust_contrast(out, factors[1]);
    if (what == 2 && options.saturation > 0) out = adjust_saturation(out, factors[2]);
    if (what == 3 && options.hue > 0) out = adjust_hue(out, factors[3]);
  }
  return out.tensor().storage().same_block(image.tensor().storage()) ? image.clone() : out;
}

struct RandomErasingOptions {
  float p = 0.5f;
  double scale_min = 0.02, scale_max = 0.33, ratio_min = 0.3, ratio_max = 3.3;  ///< area; height over width
  std::optional<float> value = 0.0f;  ///< what the part is filled with; empty: normal noise
};

/// A rectangle of the image replaced, with probability p.
template <int C>
Image<C> random_erasing(const Image<C>& image, Rng& rng, const RandomErasingOptions& options = {}) {
  detail::check_probability("random_erasing", options.p);
  if (!(options.scale_min >= 0 && options.scale_min <= options.scale_max && options.scale_max <= 1 &&
        options.ratio_min > 0 && options.ratio_min <= options.ratio_max && std::isfinite(options.ratio_max)))
    throw ValueError("random_erasing: wanted 0 <= scale_min <= scale_max <= 1 and 0 < ratio_min <= ratio_max");
  Image<C> out = image.clone();
  if (!(rng.uniform() < options.p)) return out;
  const double area = double(image.h()) * double(image.w()), low = std::log(options.ratio_min),
               high = std::log(options.ratio_max);
  for (int tries = 0; tries < 10; ++tries) {
    const double part =
        area * (options.scale_min + detail::rounded((options.scale_max - options.scale_min) * double(rng.uniform())));
    const double ratio = std::exp(low + detail::rounded((high - low) * double(rng.uniform())));
    const auto tall = std::int64_t(std::llround(std::sqrt(part * ratio))),
               wide = std::int64_t(std::llround(std::sqrt(part / ratio)));
    if (!(tall < image.h() && wide < image.w())) continue;
    const std::int64_t y = rng.below(std::uint32_t(image.h() - tall + 1));
    const std::int64_t x = rng.below(std::uint32_t(image.w() - wide + 1));
    for (std::int64_t n = 0; n < image.n(); ++n)
      for (std::int64_t row = y; row < y + tall; ++row)
        for (std::int64_t i = 0; i < wide * C; ++i)
          (&out(n, 0, row, x))[i] = options.value ? *options.value : rng.normal();
    return out;
  }
  return out;
}

}}  // namespace strata::STRATA_ABI
