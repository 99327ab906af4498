// Who computes convolutions on a device: Strata's own kernels, or the vendor's library.
//
//     st::accelerator(st::Device::cuda()).set_engine({.engine = st::Engine::benchmark});
#pragma once

#include <cstddef>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// native: Strata's kernels. library: cuDNN, and cuBLASLt where it is a matrix product; what they cannot do is an
/// error. benchmark: times both the first time a problem is seen and keeps the faster; what the library cannot do is
/// native. Convolutions in fp16 and bf16 are native always: here such factors lie in memory as float32, in the
/// libraries not.
enum class Engine { native, library, benchmark };

struct EngineOptions {
  Engine engine = Engine::native;
  /// Only kernels that give the same bits each time. The native ones always do. A benchmark chooses by the clock, so
  /// two runs may choose differently: for equal bits from run to run take native or library.
  bool deterministic = true;
  /// What one call of a library may take for itself.
  std::size_t max_workspace_bytes = std::size_t{1} << 30;
};

}}  // namespace strata::STRATA_ABI
