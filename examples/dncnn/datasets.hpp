// Noisy images to train on and to test with, made of clean ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "../common/clean_images.hpp"
#include "strata/strata.hpp"

namespace dncnn {

namespace st = strata;

/// Noisy patches to train on; `samples` of them are an epoch.
template <int Channels>
st::NoisyPatches<Channels> training_data(const std::string& source, std::int64_t samples, std::int64_t patch_size,
                                         float sigma) {
  const std::size_t generated = std::min<std::size_t>(std::size_t(samples), 800);
  return st::NoisyPatches(sources::at_least(sources::clean_images<Channels>(source, generated, /*seed=*/1), patch_size,
                                            "a patch (--patch-size)"),
                          {.patch_size = patch_size, .size = samples, .sigma = sigma});
}

/// Whole images under noise that is the same every time. Dead leaves are others than those of training.
template <int Channels>
st::NoisyImages<Channels> test_data(const std::string& source, const st::NoisyImagesOptions& noise) {
  return st::NoisyImages(sources::measurable(sources::clean_images<Channels>(source, 8, /*seed=*/2)), noise);
}

}  // namespace dncnn
