// Small images and the large ones they were made of, by MATLAB's bicubic as super-resolution's papers do it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
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

/// Whole pictures to measure with, grey or colour as their files are, and their halves as a file would hold them: in 8
/// bits. Extents are cut to multiples of the factor. Throws ShapeError, naming it, for a picture too small for SSIM's
/// window.
class TestPairs {
 public:
  TestPairs(const std::string& source, std::int64_t factor) : factor_(factor) {
    if (source == sources::dead_leaves) {
      const auto images = sources::clean_images<1>(source, 8, /*seed=*/2);
      for (std::size_t i = 0; i < images.size(); ++i) add(images.name(i), images.image(i));
      return;
    }
    for (const auto& path : st::list_images(source)) {
      if (st::read_image_info(path).channels <= 2)
        add(path.string(), st::load_image<1>(path));
      else
        add(path.string(), st::load_image<3>(path));
    }
  }

  std::size_t size() const { return samples_.size(); }
  const std::string& name(std::size_t index) const { return names_.at(index); }
  /// use(sample), a Sample<1> or Sample<3>.
  template <class Use>
  void get(std::size_t index, Use&& use) const {
    std::visit(use, samples_.at(index));
  }

 private:
  template <int C>
  void add(const std::string& name, const st::Image<C>& image) {
    const std::int64_t least = (11 + 2 * factor_ + factor_ - 1) / factor_ * factor_;
    if (image.h() < least || image.w() < least)
      throw st::ShapeError(st::concat(name, ": the image has ", image.w(), "x", image.h(),
                                      " pixels; SSIM's window wants ", least, "x", least,
                                      " at least. Remove it, or choose another folder"));
    const st::Image<C> large = st::crop_to_multiple(image, factor_);
    st::Image<C> small = st::resize_bicubic(large, large.h() / factor_, large.w() / factor_);
    for (float& value : small.span()) value = std::nearbyint(std::clamp(value, 0.0f, 1.0f) * 255) / 255;
    samples_.push_back(st::Sample<C>{small, large});
    names_.push_back(name);
  }

  std::int64_t factor_;
  std::vector<std::variant<st::Sample<1>, st::Sample<3>>> samples_;
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
