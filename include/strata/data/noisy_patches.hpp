// Training and test sets for denoising, from any source of clean images.
//
//     st::NoisyPatches train(st::ImageFolder<1>("photos"), {.patch_size = 40, .patches_per_image = 128, .sigma = 25});
//     st::NoisyImages test(st::ImageFolder<1>("Set12"), {.sigma = 25});
//
// Noise levels are standard deviations in units of 1/255, as papers give them: sigma 25 adds noise of 25 / 255 to
// images whose values run from 0 to 1. A source given by name is referred to and must outlive the set, a temporary is
// kept.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/numpy_random.hpp"
#include "strata/core/random.hpp"
#include "strata/data/image_source.hpp"
#include "strata/data/sample.hpp"
#include "strata/data/transforms.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A square patch of `size` pixels from a random place of an image, in one of its eight orientations if `augment`.
/// Throws ShapeError, naming the image, when that is smaller.
template <int C>
Image<C> random_patch(const AnyImages<C>& images, std::size_t index, std::int64_t size, Rng& rng, bool augment = true) {
  const std::optional<ImageSize> known = images.size_of(index);
  Image<C> image;  // the whole, or where parts are quicker the patch alone
  if (!known) image = images.image(index);
  const ImageSize whole = known.value_or(ImageSize{image.h(), image.w()});
  if (whole.h < size || whole.w < size)
    throw ShapeError(concat(images.name(index), ": the image has ", whole.w, "x", whole.h,
                            " pixels, smaller than a patch of ", size, "x", size,
                            "; lower .patch_size or remove the image"));
  std::int64_t y = rng.below(std::uint32_t(whole.h - size + 1)), x = rng.below(std::uint32_t(whole.w - size + 1));
  const int orientation = augment ? int(rng.below(8)) : 0;
  if (known) {
    image = images.part(index, y, x, size, size);
    y = x = 0;
  }
  Image<C> patch(1, size, size);
  detail::copy_dihedral<C>(&image(0, 0, y, x), image.w(), size, size, orientation, patch.data());
  return patch;
}

struct NoisyPatchesOptions {
  std::int64_t patch_size = 40;
  std::int64_t patches_per_image = 1;     ///< size() is that times the number of images
  std::optional<std::int64_t> size = {};  ///< or size() is given, and patches_per_image does not count
  std::optional<float> sigma = {};        ///< one noise level; 25 when no level and no range is given
  std::optional<float> sigma_min = {};    ///< or a range: every patch draws its level uniformly from
  std::optional<float> sigma_max = {};    ///< [sigma_min, sigma_max], for a network for any level ("blind")
  bool augment = true;                    ///< every patch in one of the eight orientations, drawn at random
};

/// Patches of clean images as targets, the same with Gaussian noise as inputs (neither clamped nor rounded). Place,
/// orientation, level and noise are drawn anew for each sample and epoch; sample i is of image i % (number of images).
template <int C>
class NoisyPatches {
 public:
  static constexpr int channels = C;

  /// Throws ValueError for options that cannot be meant and for a source without images.
  NoisyPatches(AnyImages<C> images, const NoisyPatchesOptions& options = {})
      : images_(std::move(images)), options_(options) {
    const auto positive = [](const char* name, std::int64_t value) {
      if (value < 1) throw ValueError(concat("NoisyPatches: got .", name, " = ", value, ", wanted at least 1"));
    };
    positive("patch_size", options_.patch_size);
    positive("patches_per_image", options_.patches_per_image);
    positive("size", options_.size.value_or(1));
    if (images_.size() == 0) throw ValueError("NoisyPatches: there are no images to take patches from");
    if (options_.sigma_min.has_value() != options_.sigma_max.has_value())
      throw ValueError("NoisyPatches: a range of noise levels needs both .sigma_min and .sigma_max");
    if (options_.sigma_min && options_.sigma)
      throw ValueError("NoisyPatches: give .sigma, or .sigma_min and .sigma_max, not all of them");
    low_ = options_.sigma_min.value_or(options_.sigma.value_or(25.0f));
    high_ = options_.sigma_max.value_or(low_);
    if (!(low_ >= 0 && high_ >= low_ && high_ <= std::numeric_limits<float>::max()))
      throw ValueError(
          concat("NoisyPatches: got noise levels from ", low_, " to ", high_, ", wanted 0 <= sigma_min <= sigma_max"));
  }

  std::size_t size() const {
    return options_.size ? std::size_t(*options_.size) : images_.size() * std::size_t(options_.patches_per_image);
  }

  /// Throws ShapeError, naming the image, when it is smaller than a patch.
  Sample<C> get(std::size_t index, Rng& rng) const {
    const Image<C> clean = random_patch(images_, index % images_.size(), options_.patch_size, rng, options_.augment);
    const float sigma = high_ > low_ ? rng.uniform(low_, high_) : low_;
    return {add_gaussian_noise(clean, sigma / 255.0f, rng), clean};
  }

 private:
  AnyImages<C> images_;
  NoisyPatchesOptions options_;
  float low_ = 0, high_ = 0;
};
template <class S>
NoisyPatches(S&&, NoisyPatchesOptions = {}) -> NoisyPatches<std::remove_cvref_t<S>::channels>;

/// Where the noise of a test set comes from.
enum class NoiseGenerator {
  numpy,  ///< numpy.random.seed(seed) for every image, then numpy.random.normal(0, sigma / 255, (H, W, C)): the
          ///< protocol behind many published figures, so that they can be compared to the last digit
  philox  ///< Strata's own, another stream for every image
};

struct NoisyImagesOptions {
  float sigma = 25;
  std::uint32_t seed = 0;
  NoiseGenerator generator = NoiseGenerator::numpy;
};

/// Whole images with noise that is the same at every call, for validation and tests; neither clamped nor rounded.
/// Images may differ in size: use batches of one.
template <int C>
class NoisyImages {
 public:
  static constexpr int channels = C;

  NoisyImages(AnyImages<C> images, const NoisyImagesOptions& options = {})
      : images_(std::move(images)), options_(options) {
    if (!(options_.sigma >= 0))
      throw ValueError(concat("NoisyImages: got .sigma = ", options_.sigma, ", wanted 0 or more"));
  }

  std::size_t size() const { return images_.size(); }
  std::string name(std::size_t index) const { return images_.name(index); }

  Sample<C> get(std::size_t index) const {
    const Image<C> clean = images_.image(index);
    if (options_.generator == NoiseGenerator::philox) {
      Rng rng(options_.seed, 0, std::uint32_t(index));
      return {add_gaussian_noise(clean, options_.sigma / 255.0f, rng), clean};
    }
    Image<C> noisy(clean.n(), clean.h(), clean.w());
    NumpyRandom random(options_.seed);
    const double sigma = double(options_.sigma) / 255.0;
    for (std::int64_t i = 0; i < clean.size(); ++i)
      noisy.data()[i] = float(double(clean.data()[i]) + random.normal(0, sigma));
    return {noisy, clean};
  }
  Sample<C> get(std::size_t index, Rng&) const { return get(index); }

 private:
  AnyImages<C> images_;
  NoisyImagesOptions options_;
};
template <class S>
NoisyImages(S&&, NoisyImagesOptions = {}) -> NoisyImages<std::remove_cvref_t<S>::channels>;

}}  // namespace strata::STRATA_ABI
