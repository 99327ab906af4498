// Where the images come from: a folder of photographs, or the endless dead-leaves pictures that need no download.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "strata/strata.hpp"

namespace dncnn {

namespace st = strata;

/// What stands for the generated images where a folder is expected.
inline constexpr const char* dead_leaves = "dead-leaves";

/// The images of a folder, colour converted to grey for one channel; or `generated` dead-leaves images of `seed`, drawn
/// once, since drawing one takes as long as some hundred patches.
template <int Channels>
st::AnyImages<Channels> clean_images(const std::string& source, std::size_t generated, std::uint64_t seed) {
  if (source == dead_leaves)
    return st::MemoryImages<Channels>(st::DeadLeaves<Channels>({.size = generated, .seed = seed}));
  return st::ImageFolder<Channels>(source, {.convert = true});
}

/// Noisy patches to train on; `samples` of them are an epoch.
template <int Channels>
st::NoisyPatches<Channels> training_data(const std::string& source, std::int64_t samples, std::int64_t patch_size,
                                         float sigma) {
  const std::size_t generated = std::min<std::size_t>(std::size_t(samples), 800);
  return st::NoisyPatches(clean_images<Channels>(source, generated, /*seed=*/1),
                          {.patch_size = patch_size, .size = samples, .sigma = sigma});
}

/// Whole images under noise that is the same every time. Dead leaves are others than those of training.
template <int Channels>
st::NoisyImages<Channels> test_data(const std::string& source, const st::NoisyImagesOptions& noise) {
  return st::NoisyImages(clean_images<Channels>(source, 8, /*seed=*/2), noise);
}

}  // namespace dncnn
