// What a file in MNIST's format holds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI::detail {

struct IdxFile {
  std::array<std::int64_t, 3> sizes{};  ///< of the dimensions, the first `rank` of them
  std::vector<unsigned char> bytes;     ///< the file's, decompressed
  std::size_t begin = 0;                ///< where the elements start

  const unsigned char* elements() const { return bytes.data() + begin; }
};

}  // namespace strata::inline STRATA_ABI::detail
