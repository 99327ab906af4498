// Makes the CUDA devices known to the program. The one .cu file that strata::cuda adds to a target includes this
// header; a program of one .cu file may include it itself.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "strata/cuda/backend.cuh"
#include "strata/kernels/accelerator.hpp"
#if __has_include(<cudnn.h>) && __has_include(<cublasLt.h>) && !defined(STRATA_CUDA_ON_HOST)
#define STRATA_CUDA_LIBRARIES 1
#include "strata/cuda/engine.cuh"
#endif
#if __has_include(<nccl.h>) && !defined(STRATA_CUDA_ON_HOST)
#define STRATA_NCCL 1
#include "strata/cuda/nccl.cuh"
#endif

namespace strata { inline namespace STRATA_ABI { namespace cuda {

#if defined(STRATA_CUDA_LIBRARIES)
using DefaultBackend = WithLibraries<Backend>;
#else
using DefaultBackend = Backend;
#endif

/// The device, made at the first call. It is never destroyed, so that tensors with static lifetime stay valid. Throws
/// DeviceError, with the reason, where there is none.
inline Accelerator& backend(int index) {
  static std::mutex& guard = *new std::mutex;
  static auto& backends = *new std::map<int, std::unique_ptr<DefaultBackend>>;
  const std::lock_guard lock(guard);
  std::unique_ptr<DefaultBackend>& place = backends[index];
  if (place == nullptr) {
    if (const std::string reason = device_missing(index); !reason.empty()) throw DeviceError(reason);
    place = std::make_unique<DefaultBackend>(index);
  }
  return *place;
}

inline const AcceleratorProvider provider{&device_count, &device_missing, &backend};

[[maybe_unused]] static const bool registered = (register_cuda(provider), true);

#if defined(STRATA_NCCL)
/// The ranks' devices, in the order of their work. All ranks call it.
inline std::unique_ptr<DeviceRanks> meet_over_nccl(Device device, Communicator& ranks) {
  auto& gpu = static_cast<DefaultBackend&>(backend(device.index));
  return std::make_unique<NcclRanks>(ranks, gpu.stream());  // which makes the device the current one
}
inline const DeviceRanksProvider nccl_provider{"NCCL", &meet_over_nccl};
[[maybe_unused]] static const bool nccl_registered =
    (strata::detail::device_ranks_provider.store(&nccl_provider, std::memory_order_release), true);
#endif

}}}  // namespace strata::STRATA_ABI::cuda
