// Noisy patches with the map of their noise level, every patch with a level of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "../common/clean_images.hpp"
#include "strata/strata.hpp"

namespace ffdnet {

namespace st = strata;

/// The image with one more channel that holds `sigma` (on the image's scale, 25 / 255) everywhere.
template <int Channels>
st::Image<Channels + 1> with_noise_map(const st::Image<Channels>& image, float sigma) {
  st::Image<Channels + 1> out(image.n(), image.h(), image.w());
  for (std::int64_t i = 0, pixels = image.size() / Channels; i < pixels; ++i) {
    std::copy_n(image.data() + i * Channels, Channels, out.data() + i * (Channels + 1));
    out.data()[i * (Channels + 1) + Channels] = sigma;
  }
  return out;
}

/// Patches to train on; `samples` of them are an epoch. Levels are drawn uniformly from 0 to `sigma_max` (of 255).
template <int Channels>
class NoiseMapPatches {
 public:
  NoiseMapPatches(st::AnyImages<Channels> images, std::int64_t samples, std::int64_t patch_size, float sigma_max)
      : images_(std::move(images)), samples_(samples), patch_size_(patch_size), sigma_max_(sigma_max) {}

  std::size_t size() const { return std::size_t(samples_); }

  st::Pair<st::Image<Channels + 1>, st::Image<Channels>> get(std::size_t index, st::Rng& rng) const {
    const st::Image<Channels> clean = st::random_patch(images_, index % images_.size(), patch_size_, rng);
    const float sigma = rng.uniform(0, sigma_max_) / 255;
    return {with_noise_map(st::add_gaussian_noise(clean, sigma, rng), sigma), clean};
  }

 private:
  st::AnyImages<Channels> images_;
  std::int64_t samples_, patch_size_;
  float sigma_max_;
};

}  // namespace ffdnet
