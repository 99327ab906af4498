// Numbers for the tests of kernels.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "strata/core/random.hpp"

/// `count` numbers of a normal distribution.
template <class T>
std::vector<T> normal(std::int64_t count, std::uint32_t stream) {
  strata::Rng rng(5, stream);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(rng.normal());
  return values;
}

/// Memory in which every number that a kernel forgets to write shows.
template <class T>
std::vector<T> unwritten(std::int64_t count) {
  return std::vector<T>(std::size_t(count), std::numeric_limits<T>::quiet_NaN());
}
