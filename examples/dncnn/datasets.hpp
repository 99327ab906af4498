// Where the images come from: a folder of photographs, or the endless dead-leaves pictures that need no download.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "strata/strata.hpp"

namespace dncnn {

namespace st = strata;

/// What stands for the generated images where a folder is expected.
inline constexpr const char* dead_leaves = "dead-leaves";

struct TrainingData {
  std::string source;  ///< a folder, or dead_leaves
  std::int64_t samples = 0, patch_size = 40;
  float sigma = 25;  ///< of the noise, on the scale of 0 to 255
};

/// Calls use(dataset) with noisy patches and what they were made from.
template <int Channels, class Use>
auto with_training_data(const TrainingData& options, Use&& use) {
  const st::NoisyPatchesOptions patches{.patch_size = options.patch_size, .size = options.samples, .sigma = options.sigma};
  if (options.source == dead_leaves) {
    const st::DeadLeaves<Channels> images({.size = 1024, .seed = 1});
    return use(st::NoisyPatches(images, patches));
  }
  const st::ImageFolder<Channels> images(options.source, {.convert = true});
  return use(st::NoisyPatches(images, patches));
}

/// Calls use(dataset) with whole images under noise that is the same every time.
template <int Channels, class Use>
auto with_test_data(const std::string& source, float sigma, Use&& use) {
  if (source == dead_leaves) {
    const st::DeadLeaves<Channels> images({.size = 8, .seed = 2});  // another seed than for training
    return use(st::NoisyImages(images, {.sigma = sigma}));
  }
  const st::ImageFolder<Channels> images(source, {.convert = true});
  return use(st::NoisyImages(images, {.sigma = sigma}));
}

}  // namespace dncnn
