// What a program asks about CUDA. No CUDA header is behind it: a program that links strata::strata instead of
// strata::cuda compiles as well, and is told why there is no device.
//
//     if (!st::cuda_available()) std::cerr << st::cuda_missing() << '\n';
//
// Link the CMake target strata::cuda, which adds the device code to the program.
#pragma once

#include "strata/core/macros_away.inc"

#include <string>

#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI {

/// How many CUDA devices the program can use.
inline int cuda_device_count() {
  const AcceleratorProvider* provider = detail::cuda_provider.load(std::memory_order_acquire);
  return provider != nullptr ? provider->count() : 0;
}

inline bool cuda_available() { return cuda_device_count() > 0; }

/// Why CUDA device `index` cannot be used: a sentence that says whether build, driver or device is missing. Empty where
/// it can.
inline std::string cuda_missing(int index = 0) { return missing_reason(Device::cuda(index)); }

}}  // namespace strata::STRATA_ABI

#include "strata/core/macros_back.inc"
