// What is done to images before they are trained on: crops, padding, the eight orientations, noise, blur, rounding,
// luma, smaller sizes.
//
//     auto patch = st::random_crop(image, 40, rng);
//     auto turned = st::dihedral(patch, int(rng.below(8)));
//     auto noisy = st::add_gaussian_noise(turned, 25.0f / 255, rng);
//
//     auto moved = st::random_crop(image, 32, rng, {.padding = 4});     // a classifier's usual ones
//     auto mirrored = st::random_horizontal_flip(moved, rng);
//     auto input = st::normalize(mirrored, {0.49f, 0.48f, 0.45f}, {0.25f, 0.24f, 0.26f});
//
// Every function returns a new image and leaves its argument alone; a batch of n images gives n images.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"
#include "strata/core/simd.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Image n of a batch, shape (1, C, H, W). Throws ValueError for an n outside.
template <int C>
Image<C> select(const Image<C>& batch, std::int64_t n) {
  if (n < 0 || n >= batch.n()) throw ValueError(concat("select: got image ", n, " of a batch of ", batch.n()));
  Image<C> image(1, batch.h(), batch.w());
  std::copy_n(batch.data() + n * image.size(), image.size(), image.data());
  return image;
}

/// Rows y to y + h - 1 and columns x to x + w - 1. Throws ShapeError when they are not all inside.
template <int C>
Image<C> crop(const Image<C>& image, std::int64_t y, std::int64_t x, std::int64_t h, std::int64_t w) {
  if (y < 0 || x < 0 || h <= 0 || w <= 0 || h > image.h() - y || w > image.w() - x)
    throw ShapeError(concat("crop: ", h, "x", w, " (rows x columns) at row ", y, ", column ", x,
                            " is not inside an image of ", image.h(), "x", image.w()));
  Image<C> out(image.n(), h, w);
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t row = 0; row < h; ++row) std::copy_n(&image(n, 0, y + row, x), w * C, &out(n, 0, row, 0));
  return out;
}

/// The middle of an image whose height and width are cut to multiples of `multiple`, as super-resolution wants. Throws
/// ShapeError when nothing is left.
template <int C>
Image<C> crop_to_multiple(const Image<C>& image, std::int64_t multiple) {
  if (multiple < 1) throw ValueError(concat("crop_to_multiple: got ", multiple, ", wanted at least 1"));
  const std::int64_t h = image.h() / multiple * multiple, w = image.w() / multiple * multiple;
  return crop(image, (image.h() - h) / 2, (image.w() - w) / 2, h, w);
}

/// A part of h x w pixels at a place drawn from rng (first the row, then the column). Throws ShapeError when the image
/// is smaller.
template <int C>
Image<C> random_crop(const Image<C>& image, std::int64_t h, std::int64_t w, Rng& rng) {
  if (h > image.h() || w > image.w() || h <= 0 || w <= 0)
    throw ShapeError(
        concat("random_crop: wanted ", h, "x", w, " (rows x columns) of an image of ", image.h(), "x", image.w()));
  const std::int64_t y = rng.below(std::uint32_t(image.h() - h + 1));
  const std::int64_t x = rng.below(std::uint32_t(image.w() - w + 1));
  return crop(image, y, x, h, w);
}
template <int C>
Image<C> random_crop(const Image<C>& image, std::int64_t size, Rng& rng) {
  return random_crop(image, size, size, rng);
}

/// What lies beyond an image's border: zeros, or the image mirrored at its last pixels, which are not repeated.
enum class CropPadding { zeros, reflect };

/// The image with `padding` pixels more on each side. Throws ValueError for a negative padding, ShapeError where
/// reflect finds no pixel to mirror: padding must be less than height and width then.
template <int C>
Image<C> pad(const Image<C>& image, std::int64_t padding, CropPadding mode = CropPadding::zeros) {
  constexpr std::int64_t most = std::int64_t{1} << 24;
  if (padding < 0 || padding > most)
    throw ValueError(concat("pad: got a padding of ", padding, ", wanted 0 to ", most));
  const std::int64_t h = image.h(), w = image.w();
  if (mode == CropPadding::reflect && (padding >= h || padding >= w))
    throw ShapeError(
        concat("pad: ", padding, " pixels cannot be mirrored beyond an image of ", h, "x", w, " (rows x columns)"));
  Image<C> out(image.n(), h + 2 * padding, w + 2 * padding);
  const auto mirrored = [](std::int64_t i, std::int64_t size) {
    return i < 0 ? -i : i < size ? i : 2 * (size - 1) - i;
  };
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = -padding; y < h + padding; ++y) {
      float* to = &out(n, 0, y + padding, 0);
      if (mode == CropPadding::zeros && (y < 0 || y >= h)) {
        std::fill_n(to, out.w() * C, 0.0f);
        continue;
      }
      const float* row = &image(n, 0, mirrored(y, h), 0);
      for (std::int64_t x = -padding; x < w + padding; ++x, to += C)
        if (mode == CropPadding::zeros && (x < 0 || x >= w))
          std::fill_n(to, C, 0.0f);
        else
          std::copy_n(row + mirrored(x, w) * C, C, to);
    }
  return out;
}

struct RandomCropOptions {
  std::int64_t padding = 0;  ///< pixels put beyond each border before the crop
  CropPadding padding_mode = CropPadding::zeros;
};

/// random_crop of the padded image: the picture moves by up to `padding` pixels, as classifiers of small images are
/// trained.
template <int C>
Image<C> random_crop(const Image<C>& image, std::int64_t size, Rng& rng, const RandomCropOptions& options) {
  return random_crop(pad(image, options.padding, options.padding_mode), size, size, rng);
}

/// The same place of input and target. Where the target is larger (super-resolution) its height and width are a whole
/// multiple of the input's, and `size` counts pixels of the input.
template <int C>
Sample<C> random_crop(const Sample<C>& sample, std::int64_t size, Rng& rng) {
  const Image<C>&input = sample.input, &target = sample.target;
  const std::int64_t scale = input.h() > 0 ? target.h() / input.h() : 0;
  if (target.h() != scale * input.h() || target.w() != scale * input.w())
    throw ShapeError(
        concat("random_crop: the target ", target.shape().str(), " is no multiple of the input ", input.shape().str()));
  if (size > input.h() || size > input.w() || size <= 0)
    throw ShapeError(concat("random_crop: wanted ", size, "x", size, " of an image of ", input.h(), "x", input.w()));
  const std::int64_t y = rng.below(std::uint32_t(input.h() - size + 1));
  const std::int64_t x = rng.below(std::uint32_t(input.w() - size + 1));
  return {crop(input, y, x, size, size), crop(target, y * scale, x * scale, size * scale, size * scale)};
}

namespace detail {

/// Writes orientation k (see dihedral) of the h x w pixels at `from`, whose rows are `row` pixels apart, one after
/// another.
template <int C>
void copy_dihedral(const float* from, std::int64_t row, std::int64_t h, std::int64_t w, int k, float* to) {
  // Pixel (i, j) of the result is pixel (y, x) = start + i * down + j * right of the mirrored image.
  constexpr std::int64_t down[4][2] = {{1, 0}, {0, -1}, {-1, 0}, {0, 1}};
  constexpr std::int64_t right[4][2] = {{0, 1}, {1, 0}, {0, -1}, {-1, 0}};
  const int turn = k % 4;
  const std::int64_t start_y = turn >= 2 ? h - 1 : 0, start_x = turn == 1 || turn == 2 ? w - 1 : 0;
  const std::int64_t sign = k >= 4 ? -1 : 1;
  const std::int64_t first = start_y * row + (k >= 4 ? w - 1 - start_x : start_x);
  const std::int64_t step_down = down[turn][0] * row + sign * down[turn][1];
  const std::int64_t step_right = right[turn][0] * row + sign * right[turn][1];
  const std::int64_t out_h = turn % 2 ? w : h, out_w = turn % 2 ? h : w;
  for (std::int64_t i = 0; i < out_h; ++i) {
    const float* pixel = from + (first + i * step_down) * C;
    if (step_right == 1) {
      to = std::copy_n(pixel, out_w * C, to);
      continue;
    }
    for (std::int64_t j = 0; j < out_w; ++j, pixel += step_right * C)
      for (int c = 0; c < C; ++c) *to++ = pixel[c];
  }
}

}  // namespace detail

/// One of the eight orientations of a picture: mirrored left to right when k >= 4, then turned counter-clockwise k % 4
/// times by 90 degrees, as numpy.rot90(numpy.fliplr(x) if k >= 4 else x, k % 4). Throws ValueError outside 0 to 7.
template <int C>
Image<C> dihedral(const Image<C>& image, int k) {
  if (k < 0 || k > 7) throw ValueError(concat("dihedral: got ", k, ", wanted 0 to 7"));
  const std::int64_t h = image.h(), w = image.w(), size = h * w * C;
  Image<C> out = k % 2 ? Image<C>(image.n(), w, h) : Image<C>(image.n(), h, w);
  for (std::int64_t n = 0; n < image.n(); ++n)
    detail::copy_dihedral<C>(image.data() + n * size, w, h, w, k, out.data() + n * size);
  return out;
}
template <int K, int C>
Image<C> dihedral(const Image<C>& image) {
  static_assert(K >= 0 && K < 8, "strata::dihedral<K>: K is 0 to 7, one of the eight orientations");
  return dihedral(image, K);
}
template <int C>
Sample<C> dihedral(const Sample<C>& sample, int k) {
  return {dihedral(sample.input, k), dihedral(sample.target, k)};
}

/// The orientation that undoes k: dihedral(dihedral(x, k), dihedral_inverse(k)) is x.
constexpr int dihedral_inverse(int k) { return k >= 4 ? k : (4 - k) % 4; }

/// The image mirrored left to right with probability p, all images of a batch alike. Throws ValueError for a p outside
/// [0, 1].
template <int C>
Image<C> random_horizontal_flip(const Image<C>& image, Rng& rng, float p = 0.5f) {
  if (!(p >= 0 && p <= 1)) throw ValueError(concat("random_horizontal_flip: got p ", p, ", wanted 0 to 1"));
  return dihedral(image, rng.uniform() < p ? 4 : 0);
}
/// Input and target alike.
template <int C>
Sample<C> random_horizontal_flip(const Sample<C>& sample, Rng& rng, float p = 0.5f) {
  if (!(p >= 0 && p <= 1)) throw ValueError(concat("random_horizontal_flip: got p ", p, ", wanted 0 to 1"));
  return dihedral(sample, rng.uniform() < p ? 4 : 0);
}

/// (image - mean) / std, a mean and a standard deviation for each channel. Throws ValueError unless all are finite and
/// every deviation is above 0.
template <int C>
Image<C> normalize(const Image<C>& image, const std::array<float, std::size_t(C)>& mean,
                   const std::array<float, std::size_t(C)>& deviation) {
  for (std::size_t c = 0; c < std::size_t(C); ++c)
    if (!std::isfinite(mean[c]) || !(deviation[c] > 0) || !std::isfinite(deviation[c]))
      throw ValueError(concat("normalize: channel ", c, " has mean ", mean[c], " and std ", deviation[c],
                              "; wanted finite numbers, std above 0"));
  Image<C> out(image.n(), image.h(), image.w());
  for (std::int64_t i = 0; i < image.size(); i += C)
    for (int c = 0; c < C; ++c)
      out.data()[i + c] = (image.data()[i + c] - mean[std::size_t(c)]) / deviation[std::size_t(c)];
  return out;
}

/// image + sigma * n, n standard normal; sigma in the image's units (25 / 255 for "sigma 25"). Neither clamped nor
/// rounded, as is usual for training. Throws ValueError for a negative sigma.
template <int C>
Image<C> add_gaussian_noise(const Image<C>& image, float sigma, Rng& rng) {
  if (!(sigma >= 0)) throw ValueError(concat("add_gaussian_noise: got sigma ", sigma, ", wanted 0 or more"));
  Image<C> out(image.n(), image.h(), image.w());
  rng.fill_normal(out.span(), 0.0f, sigma);
  for (std::int64_t i = 0; i < image.size(); ++i) out.data()[i] += image.data()[i];
  return out;
}

namespace detail {

/// to[i] += scale * from[i], each rounded twice.
inline void add_scaled(std::int64_t count, float scale, const float* from, float* to) {
  simd::over_vectors<float>(count, [&]<class V>(std::int64_t i) {
    simd::store<V>(to + i, simd::load<V>(to + i) + rounded(scale * simd::load<V>(from + i)));
  });
}

}  // namespace detail

/// The image under a Gaussian of standard deviation `sigma` pixels, cut off at 3 sigma; beyond the border its last
/// pixels go on. Throws ValueError for a sigma that is negative or over 100.
template <int C>
Image<C> gaussian_blur(const Image<C>& image, float sigma) {
  if (!(sigma >= 0 && sigma <= 100)) throw ValueError(concat("gaussian_blur: got sigma ", sigma, ", wanted 0 to 100"));
  const auto reach = std::int64_t(std::ceil(3 * sigma));
  std::vector<float> weights(std::size_t(2 * reach + 1), 1.0f);
  float sum = 1;
  for (std::int64_t i = 1; i <= reach; ++i) {
    const float weight = std::exp(-float(i * i) / (2 * sigma * sigma));
    weights[std::size_t(reach - i)] = weights[std::size_t(reach + i)] = weight;
    sum += 2 * weight;
  }
  for (float& weight : weights) weight /= sum;
  const std::int64_t h = image.h(), w = image.w();
  Image<C> rows(1, h, w), out(image.n(), h, w);
  std::vector<float> line(std::size_t((w + 2 * reach) * C));  // a row that goes on beyond both borders
  for (std::int64_t n = 0; n < image.n(); ++n) {
    for (std::int64_t y = 0; y < h; ++y) {
      for (std::int64_t x = -reach; x < w + reach; ++x)
        std::copy_n(&image(n, 0, y, std::clamp<std::int64_t>(x, 0, w - 1)), C, line.data() + (x + reach) * C);
      std::fill_n(&rows(0, 0, y, 0), w * C, 0.0f);
      for (std::int64_t i = 0; i <= 2 * reach; ++i)
        detail::add_scaled(w * C, weights[std::size_t(i)], line.data() + i * C, &rows(0, 0, y, 0));
    }
    std::fill_n(&out(n, 0, 0, 0), h * w * C, 0.0f);
    for (std::int64_t y = 0; y < h; ++y)
      for (std::int64_t i = -reach; i <= reach; ++i)
        detail::add_scaled(w * C, weights[std::size_t(reach + i)],
                           &rows(0, 0, std::clamp<std::int64_t>(y + i, 0, h - 1), 0), &out(n, 0, y, 0));
  }
  return out;
}

/// What an 8-bit file holds of an image: clamped to [0, 1] and rounded to the nearest of 256 levels.
template <int C>
Image<C> round_to_8bit(const Image<C>& image) {
  Image<C> out(image.n(), image.h(), image.w());
  std::transform(image.data(), image.data() + image.size(), out.data(),
                 [](float value) { return std::nearbyint(std::clamp(value, 0.0f, 1.0f) * 255.0f) / 255.0f; });
  return out;
}

/// RGB to grey by ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B, of the same range. (The metrics' Y runs from 16 to 235.)
inline Image<1> luma(const Image<3>& image) {
  Image<1> out(image.n(), image.h(), image.w());
  const float* from = image.data();
  for (std::int64_t i = 0; i < out.size(); ++i, from += 3)
    out.data()[i] =
        detail::rounded(0.299f * from[0]) + detail::rounded(0.587f * from[1]) + detail::rounded(0.114f * from[2]);
  return out;
}

/// An image `factor` times smaller in each direction; a pixel is the mean of factor x factor. Throws ShapeError unless
/// height and width are multiples of factor (crop_to_multiple makes them so).
template <int C>
Image<C> downsample(const Image<C>& image, std::int64_t factor) {
  if (factor < 1) throw ValueError(concat("downsample: got factor ", factor, ", wanted at least 1"));
  if (image.h() % factor != 0 || image.w() % factor != 0)
    throw ShapeError(concat("downsample: ", image.h(), "x", image.w(), " is no multiple of ", factor,
                            "; crop_to_multiple(image, ", factor, ") makes it one"));
  Image<C> out(image.n(), image.h() / factor, image.w() / factor);
  out.tensor().fill(0);
  const float weight = 1.0f / float(factor * factor);
  for (std::int64_t n = 0; n < image.n(); ++n)
    for (std::int64_t y = 0; y < image.h(); ++y) {
      const float* from = &image(n, 0, y, 0);
      float* to = &out(n, 0, y / factor, 0);
      for (std::int64_t x = 0; x < out.w(); ++x, to += C)
        for (std::int64_t i = 0; i < factor; ++i, from += C)
          for (int c = 0; c < C; ++c) to[c] += detail::rounded(weight * from[c]);
    }
  return out;
}

}}  // namespace strata::STRATA_ABI
