// Where clean images come from: a folder of photographs, or the endless dead-leaves pictures that need no download.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

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

}  // namespace sources
