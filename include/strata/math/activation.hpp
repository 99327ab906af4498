// The activations that a kernel can apply to its result before it writes it.
#pragma once

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class Activation { none, relu };

}}  // namespace strata::STRATA_ABI
