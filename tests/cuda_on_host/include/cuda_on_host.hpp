// CUDA's device side for a host compiler: what the source of a kernel sees when each CUDA thread runs as a fiber.
// strata/cuda/launch.cuh includes it where STRATA_CUDA_ON_HOST is defined; a test uses cuda_on_host_control.hpp as
// well.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <tuple>
#include <type_traits>

#include "cuda_runtime.h"

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)
#ifndef __restrict__
#define __restrict__ __restrict
#endif

/// Functions of the shim whose own accesses the instrumentation must not see.
#define CUDA_ON_HOST_UNSEEN __attribute__((noinline, no_sanitize("thread")))

namespace cuda_on_host {

using Location = std::source_location;

/// Where the calling thread is. They never change during a thread's life, so a compiler may keep them over a barrier.
[[gnu::const]] uint3 thread_index() noexcept;
[[gnu::const]] uint3 block_index() noexcept;
[[gnu::const]] dim3 block_extent() noexcept;
[[gnu::const]] dim3 grid_extent() noexcept;
unsigned lane() noexcept;

/// Stops the block that runs, with a message that names kernel, block and thread.
[[noreturn]] void fault(const char* format, ...) __attribute__((format(printf, 1, 2)));

enum class Access : unsigned char { read, write, atomic };
/// Tells the checks and the counters of one access to memory.
void note_access(const volatile void* address, std::size_t bytes, Access access, const void* instruction);

// ---------------------------------------------------------------- shared memory

/// One declaration of a shared array: the block that runs gives it its place.
struct SharedArray {
  const char* name;
  void* address = nullptr;
  std::uint64_t block = 0;
};
void* place_shared_array(SharedArray& array, std::size_t bytes, std::size_t element_bytes);
void* dynamic_shared_memory(const char* name);

template <class Array>
CUDA_ON_HOST_UNSEEN Array& shared_array(SharedArray& array) {
  return *static_cast<Array*>(place_shared_array(array, sizeof(Array), sizeof(std::remove_all_extents_t<Array>)));
}
template <class T>
T* dynamic_shared(const char* name) {
  return static_cast<T*>(dynamic_shared_memory(name));
}

// ---------------------------------------------------------------- vectors

template <class Vector, class T>
CUDA_ON_HOST_UNSEEN Vector load_vector(const T* address) {
  note_access(address, sizeof(Vector), Access::read, __builtin_return_address(0));
  Vector value;
  std::memcpy(&value, static_cast<const void*>(address), sizeof value);
  return value;
}
template <class Vector, class T>
CUDA_ON_HOST_UNSEEN void store_vector(T* address, const Vector& value) {
  note_access(address, sizeof(Vector), Access::write, __builtin_return_address(0));
  std::memcpy(static_cast<void*>(address), &value, sizeof value);
}

// ---------------------------------------------------------------- launches

struct KernelInfo {
  const char* function;  ///< __PRETTY_FUNCTION__ of a function that has the kernel as template argument
  const void* key;       ///< what cudaFuncSetAttribute is called with
};
struct Launch {
  KernelInfo kernel;
  dim3 grid, block;
  std::size_t shared_bytes = 0;
  void* arguments = nullptr;
  std::size_t argument_bytes = 0, tuple_bytes = 0;
  void (*run)(void* arguments) = nullptr;
  void (*destroy)(void* arguments) = nullptr;
};
cudaError_t enqueue(const Launch& launch, cudaStream_t stream);

template <class... P>
constexpr std::size_t parameter_bytes() {
  std::size_t end = 0;
  ((end = (end + alignof(P) - 1) / alignof(P) * alignof(P) + sizeof(P)), ...);
  return end;
}

template <auto Kernel, class... P>
cudaError_t launch(dim3 grid, dim3 block, std::size_t shared_bytes, cudaStream_t stream, P... parameters) {
  static_assert((std::is_trivially_copyable_v<P> && ...),
                "a kernel's parameters are copied to the device byte by byte");
  using Tuple = std::tuple<P...>;
  return enqueue({.kernel = {__PRETTY_FUNCTION__, reinterpret_cast<const void*>(Kernel)},
                  .grid = grid,
                  .block = block,
                  .shared_bytes = shared_bytes,
                  .arguments = new Tuple(parameters...),
                  .argument_bytes = parameter_bytes<P...>(),
                  .tuple_bytes = sizeof(Tuple),
                  .run = [](void* arguments) { std::apply(Kernel, *static_cast<Tuple*>(arguments)); },
                  .destroy = [](void* arguments) { delete static_cast<Tuple*>(arguments); }},
                 stream);
}

// ---------------------------------------------------------------- synchronisation

/// Waits until all threads of the block are here. Returns how many gave a true predicate.
int block_barrier(bool predicate, const char* name, Location location);
/// Waits until the lanes of mask are here with the same operation; then resolve runs once, with each lane's data.
using Resolve = void (*)(unsigned mask, void* const (&data)[32]);
void warp_operation(unsigned mask, Resolve resolve, void* data, bool orders_memory, const char* name,
                    Location location);

struct Shuffle {
  std::uint64_t value;
  int source;
  std::uint64_t result;
  static void resolve(unsigned mask, void* const (&data)[32]);
};
struct Vote {
  bool predicate;
  unsigned result;
  static void resolve(unsigned mask, void* const (&data)[32]);
};

template <class T>
T shuffle(unsigned mask, T value, int source, const char* name, Location location) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  Shuffle data{0, source, 0};
  std::memcpy(&data.value, &value, sizeof value);
  warp_operation(mask, &Shuffle::resolve, &data, false, name, location);
  std::memcpy(&value, &data.result, sizeof value);
  return value;
}
inline unsigned vote(unsigned mask, bool predicate, const char* name, Location location) {
  Vote data{predicate, 0};
  warp_operation(mask, &Vote::resolve, &data, false, name, location);
  return data.result;
}

template <class T, class F>
CUDA_ON_HOST_UNSEEN T atomic(T* address, F change) {
  note_access(address, sizeof(T), Access::atomic, __builtin_return_address(0));
  const T old = *address;
  *address = change(old);
  return old;
}

}  // namespace cuda_on_host

#define threadIdx (::cuda_on_host::thread_index())
#define blockIdx (::cuda_on_host::block_index())
#define blockDim (::cuda_on_host::block_extent())
#define gridDim (::cuda_on_host::grid_extent())
inline constexpr int warpSize = 32;

#include "cuda_device_functions.h"
