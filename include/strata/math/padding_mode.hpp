// What stands around an image where more is read of it, or asked for, than there is.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Beyond the image's border are zeros, the image mirrored at its outermost pixels (a row of a b c d goes on as c b a),
/// its outermost pixel again, or the image begun anew on the other side. As PyTorch's padding_mode, and
/// torch.nn.functional.pad's mode, which calls zeros constant.
enum class PaddingMode : unsigned char { zeros, reflect, replicate, circular, constant = zeros };
using PadMode = PaddingMode;  ///< an older name

constexpr const char* padding_mode_text(PaddingMode mode) {
  constexpr const char* names[] = {"zeros", "reflect", "replicate", "circular"};
  return names[int(mode)];
}

/// The place in an image of `size` rows that row `at` of the padded image shows; -1 where that is nothing but zeros.
/// `at` counts from the image's first row and lies no farther outside than the mode allows: less than the image's size
/// for reflect, as far as that for circular.
constexpr std::int64_t padded_source(PaddingMode mode, std::int64_t at, std::int64_t size) {
  if (at >= 0 && at < size) return at;
  if (mode == PaddingMode::zeros) return -1;
  if (mode == PaddingMode::reflect) return at < 0 ? -at : 2 * (size - 1) - at;
  if (mode == PaddingMode::replicate) return at < 0 ? 0 : size - 1;
  return at < 0 ? at + size : at - size;
}

}}  // namespace strata::STRATA_ABI
