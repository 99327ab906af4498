// A place in a stream of Philox numbers (core/random.hpp), as every backend takes it.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// What Rng(seed, a, b) gives after `word` words have been drawn.
struct RandomStream {
  std::uint64_t seed = 0;
  std::uint32_t a = 0, b = 0;
  std::uint64_t word = 0;
};

}}  // namespace strata::STRATA_ABI
