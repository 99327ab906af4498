// Small images and the large ones they were made of, by MATLAB's bicubic as super-resolution's papers do it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../common/clean_images.hpp"
#include "strata/strata.hpp"

namespace super_resolution {

namespace st = strata;

/// Whole images, halved once: input 1/factor of the target. Extents are cut to multiples of the factor.
class Pairs {
 public:
  Pairs(const st::AnyImages<1>& images, std::int64_t factor) {
    for (std::size_t i = 0; i < images.size(); ++i) {
      const st::Image<1> large = st::crop_to_multiple(images.image(i), factor);
      samples_.push_back({st::resize_bicubic(large, large.h() / factor, large.w() / factor), large});
      names_.push_back(images.name(i));
    }
  }

  std::size_t size() const { return samples_.size(); }
  const std::string& name(std::size_t index) const { return names_.at(index); }
  const st::Sample<1>& get(std::size_t index) const { return samples_.at(index); }

 private:
  std::vector<st::Sample<1>> samples_;
  std::vector<std::string> names_;
};

/// Patches to train on; `samples` of them are an epoch, and `patch_size` counts pixels of the target.
class Patches {
 public:
  Patches(Pairs pairs, std::int64_t samples, std::int64_t patch_size, std::int64_t factor)
      : pairs_(std::move(pairs)), samples_(samples), small_size_(patch_size / factor) {}

  std::size_t size() const { return std::size_t(samples_); }
  st::Sample<1> get(std::size_t index, st::Rng& rng) const {
    const auto patch = st::random_crop(pairs_.get(index % pairs_.size()), small_size_, rng);
    return st::dihedral(patch, int(rng.below(8)));
  }

 private:
  Pairs pairs_;
  std::int64_t samples_, small_size_;
};

}  // namespace super_resolution
