// What a convolution multiplies in. Sums are float32 always, and so is what lies in memory.
#pragma once

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// float32; or factors rounded to nearest: to 10 bits of fraction with ties away from 0 (tf32), to 7 with ties to even
/// (bf16), or to half precision with ties to even (fp16, whose largest number is 65504: losses need scaling).
enum class Precision { fp32, tf32, bf16, fp16 };

}}  // namespace strata::STRATA_ABI
