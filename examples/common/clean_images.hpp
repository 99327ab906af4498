// Where clean images come from: a folder of photographs, or the endless dead-leaves pictures that need no download.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "strata/strata.hpp"

namespace sources {

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

/// The images as they are. Throws ShapeError, naming it, where one has fewer than `least` rows or columns: before
/// anything is computed.
template <int Channels>
st::AnyImages<Channels> at_least(st::AnyImages<Channels> images, std::int64_t least, const char* wanted_for) {
  for (std::size_t i = 0; i < images.size(); ++i)
    if (const st::Image<Channels> image = images.image(i); image.h() < least || image.w() < least)
      throw st::ShapeError(st::concat(images.name(i), ": the image has ", image.w(), "x", image.h(), " pixels; ",
                                      wanted_for, " wants ", least, "x", least,
                                      " at least. Remove it, or choose another folder"));
  return images;
}

/// The same for images that are to be measured without a border, their extents cut to a multiple: SSIM's window must
/// fit.
template <int Channels>
st::AnyImages<Channels> measurable(st::AnyImages<Channels> images, std::int64_t border = 0, std::int64_t multiple = 1) {
  return at_least(std::move(images), (11 + 2 * border + multiple - 1) / multiple * multiple, "SSIM's window");
}

}  // namespace sources
