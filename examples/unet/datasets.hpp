// Images with masks: grey pictures of the image's size, white where the thing is.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "strata/strata.hpp"

namespace unet {

namespace st = strata;
namespace fs = std::filesystem;

using Masked = st::Pair<st::Image<3>, st::Image<1>>;

/// Drawn: round and square things on dead leaves; the round ones are wanted.
struct DrawnThings {
  std::size_t count;
  std::uint64_t seed;
  std::int64_t extent = 96;

  std::size_t size() const { return count; }
  Masked get(std::size_t index, st::Rng&) const {
    st::Rng rng(seed, std::uint32_t(index));
    Masked sample{st::Image<3>(1, extent, extent), st::Image<1>(1, extent, extent)};
    const auto each_pixel = [&](auto&& f) {
      for (std::int64_t y = 0; y < extent; ++y)
        for (std::int64_t x = 0; x < extent; ++x) f(y, x);
    };
    const float slope = rng.uniform(-0.4f, 0.4f), ground = rng.uniform(0.3f, 0.7f), side = float(extent);
    each_pixel([&](std::int64_t y, std::int64_t x) {
      sample.target(0, 0, y, x) = 0;
      for (int c = 0; c < 3; ++c) sample.input(0, c, y, x) = ground + slope * float(c == 1 ? y : x) / side + 0.08f * rng.normal();
    });
    for (int thing = 0; thing < 6; ++thing) {
      const bool round = thing % 2 == 0;
      const float cy = rng.uniform(0, side), cx = rng.uniform(0, side), radius = rng.uniform(0.06f, 0.16f) * side;
      const float red = rng.uniform(), green = rng.uniform(), blue = rng.uniform(), colours[3] = {red, green, blue};
      each_pixel([&](std::int64_t y, std::int64_t x) {
        const float dy = std::abs(float(y) - cy), dx = std::abs(float(x) - cx);
        if ((round ? std::hypot(dy, dx) : std::max(dy, dx)) > radius) return;
        sample.target(0, 0, y, x) = round ? 1 : 0;
        for (int c = 0; c < 3; ++c) sample.input(0, c, y, x) = colours[c] + 0.08f * rng.normal();
      });
    }
    return sample;
  }
};

/// Pictures and masks of two folders, cut to multiples of 16.
struct Folders {
  st::ImageFolder<3> images;
  st::ImageFolder<1> masks;

  Folders(const fs::path& image_folder, const fs::path& mask_folder) : images(image_folder), masks(mask_folder) {
    if (images.size() != masks.size())
      throw st::ValueError(st::concat("there are ", images.size(), " images and ", masks.size(), " masks: each image wants one mask of its name"));
    for (std::size_t i = 0; i < images.size(); ++i)
      if (images.path(i).stem() != masks.path(i).stem())
        throw st::ValueError(st::concat(images.path(i).string(), " and ", masks.path(i).string(), " have different names: each image wants a mask of its name"));
  }
  std::size_t size() const { return images.size(); }
  Masked get(std::size_t index, st::Rng&) const {
    const auto image = images.image(index);
    const auto mask = masks.image(index);
    if (image.h() != mask.h() || image.w() != mask.w())
      throw st::ShapeError(st::concat(masks.path(index).string(), ": has ", mask.h(), " x ", mask.w(), " pixels, its image ", image.h(), " x ", image.w()));
    return {st::crop_to_multiple(image, 16), st::crop_to_multiple(mask, 16)};
  }
};

}  // namespace unet
