// What a kernel's source is written with, so that the same bytes compile with nvcc, with clang -x cuda, and with a host
// compiler that runs each CUDA thread as a fiber (tests/cuda_on_host).
//
//     template <int Block>
//     STRATA_GLOBAL void __launch_bounds__(Block)
//         block_sums(int n, const float* __restrict__ x, float* __restrict__ sums) {
//       STRATA_SHARED(float, partial, [Block]);
//       const int t = int(threadIdx.x), i = int(blockIdx.x) * Block + t;
//       partial[t] = i < n ? x[i] : 0.0f;
//       __syncthreads();
//       ...
//     }
//     cudaError_t status = strata::cuda::launch<&block_sums<256>>(blocks, 256, 0, stream, n, x, sums);
//
// Everything else is CUDA's own: threadIdx, __syncthreads, __syncwarp, __shfl_*_sync, atomicAdd, __launch_bounds__.
// Rules that the host execution checks: no bare __shared__, no extern shared array, no <<<>>> and no inline PTX outside
// this folder's launch.cuh and mma.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "strata/core/config.hpp"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#elif defined(STRATA_CUDA_ON_HOST)
#include <cuda_on_host.hpp>
#else
#error \
    "strata/cuda/*.cuh are for a CUDA compiler: include them from a .cu file, or link strata::cuda and include strata/cuda.hpp"
#endif

/// Begins the declaration of a kernel. Internal linkage: two units compiled differently never share one.
#define STRATA_GLOBAL [[maybe_unused]] static __global__
/// Begins the declaration of a function that kernels call, and of one that the host calls as well.
#define STRATA_DEVICE [[maybe_unused]] static __device__ __forceinline__
#define STRATA_HOST_DEVICE [[maybe_unused]] static __host__ __device__ __forceinline__
/// The same before a member function or operator, where static would change its meaning.
#define STRATA_DEVICE_MEMBER __device__ __forceinline__
#define STRATA_HOST_DEVICE_MEMBER __host__ __device__ __forceinline__

/// Declares an array in the block's shared memory: STRATA_SHARED(float, tile, [32][33]); tile is a plain array, aligned
/// to 16 bytes. A block has at most 48 KiB of it. STRATA_DYNAMIC_SHARED(T, name) declares a T* to the shared_bytes that
/// the launch asked for, aligned to 128 bytes; one to a kernel, from which the kernel cuts its arrays.
#if defined(__CUDACC__)
#define STRATA_SHARED(T, name, ...) __shared__ __align__(16) T name __VA_ARGS__
#define STRATA_DYNAMIC_SHARED(T, name)                                             \
  extern __shared__ __align__(128) unsigned char strata_dynamic_shared_memory[];   \
  T* const name = reinterpret_cast<T*>(strata_dynamic_shared_memory)
#else
#define STRATA_SHARED(T, name, ...)                                     \
  typedef T name##_array __VA_ARGS__;                                   \
  static ::cuda_on_host::SharedArray name##_place{#name};               \
  name##_array& name = ::cuda_on_host::shared_array<name##_array>(name##_place)
#define STRATA_DYNAMIC_SHARED(T, name) T* const name = ::cuda_on_host::dynamic_shared<T>(#name)
#endif

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Launches Kernel on a grid of blocks: launch<&kernel<...>>(grid, block, shared_bytes, stream, arguments...). The
/// arguments are converted to the kernel's parameter types. Returns what the runtime says of the launch.
template <auto Kernel>
struct Launcher;
template <class... Parameters, void (*Kernel)(Parameters...)>
struct Launcher<Kernel> {
  static cudaError_t run(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                         Parameters... arguments) {
    if (shared_bytes > 48 * 1024) {  // more than what every device gives has to be asked for
      const cudaError_t status = cudaFuncSetAttribute(reinterpret_cast<const void*>(Kernel),
                                                      cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
      if (status != cudaSuccess) return status;
    }
#if defined(__CUDACC__)
    Kernel<<<grid, block, shared_bytes, stream>>>(arguments...);
    return cudaGetLastError();
#else
    return ::cuda_on_host::launch<Kernel>(grid, block, shared_bytes, stream, arguments...);
#endif
  }
};

template <auto Kernel, class... Arguments>
[[nodiscard]] inline cudaError_t launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                                        Arguments... arguments) {
  return Launcher<Kernel>::run(grid, block, shared_bytes, stream, arguments...);
}

/// One access of 8 or 16 bytes to global or shared memory: load_vector<float4>(x + i), store_vector(y + i, value). The
/// address must be aligned to the vector. A vector access is written this way, so that it is one access on the host
/// too.
template <class Vector, class T>
STRATA_DEVICE Vector load_vector(const T* address) {
#if defined(__CUDACC__)
  return *reinterpret_cast<const Vector*>(address);
#else
  return ::cuda_on_host::load_vector<Vector>(address);
#endif
}
template <class Vector, class T>
STRATA_DEVICE void store_vector(T* address, const Vector& value) {
#if defined(__CUDACC__)
  *reinterpret_cast<Vector*>(address) = value;
#else
  ::cuda_on_host::store_vector(address, value);
#endif
}

}}}  // namespace strata::STRATA_ABI::cuda
