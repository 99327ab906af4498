// The calls of the runtime that are not about streams: devices, memory, copies, launches and their limits.
#include "cuda_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "access.hpp"
#include "block.hpp"
#include "cuda_on_host_control.hpp"
#include "device_memory.hpp"
#include "shared_memory.hpp"
#include "stream.hpp"

namespace cuda_on_host {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;
std::set<int>& contexts() {
  static auto* set = new std::set<int>;
  return *set;
}
std::map<const void*, int>& opted_in() {  // the dynamic shared memory that kernels have asked for
  static auto* map = new std::map<const void*, int>;
  return *map;
}
struct Pinned {
  std::size_t bytes;
  int pending = 0;
};
std::map<std::uintptr_t, Pinned>& pinned() {
  static auto* map = new std::map<std::uintptr_t, Pinned>;
  return *map;
}
Pinned* find_pinned(const void* pointer, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto next = pinned().upper_bound(address);
  if (next == pinned().begin()) return nullptr;
  auto& [begin, memory] = *std::prev(next);
  return address - begin + bytes <= memory.bytes ? &memory : nullptr;
}

bool on_device(const void* pointer) { return is_device_address(reinterpret_cast<std::uintptr_t>(pointer)); }

bool no_device() { return options().device_count == 0; }

// Where a call that may not happen during a capture does.
#define CUDA_ON_HOST_NOT_WHILE_CAPTURING               \
  if (no_device()) return report(options().no_device); \
  if (capturing()) return report(cudaErrorStreamCaptureUnsupported)

Region* region_for_copy(const void* pointer, std::size_t bytes, const char* what) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  if (!is_device_address(address) || bytes == 0) return nullptr;
  try {
    return &device_region(address, bytes, Access::read);
  } catch (const Fault& problem) {
    throw Fault(std::string(what) + ": " + problem.what());
  }
}

void copy_now(void* to, const void* from, std::size_t bytes) {
  Region* target = region_for_copy(to, bytes, "cudaMemcpy writes");
  Region* source = region_for_copy(from, bytes, "cudaMemcpy reads");
  std::memmove(to, from, bytes);
  if (target == nullptr) return;
  const auto to_address = reinterpret_cast<std::uintptr_t>(to);
  if (source != nullptr) {
    mark_copied(*target, to_address, *source, reinterpret_cast<std::uintptr_t>(from), bytes);
  } else {
    mark_written(*target, to_address, bytes);
  }
}

void set_now(void* to, int value, std::size_t bytes) {
  Region* target = region_for_copy(to, bytes, "cudaMemset");
  if (target == nullptr && bytes > 0) throw Fault("cudaMemset of memory that is not of the device");
  std::memset(to, value, bytes);
  if (target != nullptr) mark_written(*target, reinterpret_cast<std::uintptr_t>(to), bytes);
}

bool direction_is_right(const void* to, const void* from, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return !on_device(to) && !on_device(from);
    case cudaMemcpyHostToDevice:
      return on_device(to) && !on_device(from);
    case cudaMemcpyDeviceToHost:
      return !on_device(to) && on_device(from);
    case cudaMemcpyDeviceToDevice:
      return on_device(to) && on_device(from);
    case cudaMemcpyDefault:
      return true;
  }
  return false;
}

}  // namespace

bool has_context(int device) { return contexts().contains(device); }
void forget_contexts() { contexts().clear(); }

Options& options() {
  static Options chosen;
  return chosen;
}

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

cudaError_t enqueue(const Launch& launch, cudaStream_t stream) {
  std::shared_ptr<void> arguments(launch.arguments, launch.destroy);
  if (no_device()) return report(options().no_device);
  const auto refuse = [&](cudaError_t error, const std::string& why) {
    std::fprintf(stderr, "cuda_on_host: launch of %s refused: %s\n", kernel_name(launch.kernel).c_str(), why.c_str());
    return report(error);
  };
  const dim3 grid = launch.grid, block_extent = launch.block;
  const std::uint64_t threads = std::uint64_t{block_extent.x} * block_extent.y * block_extent.z;
  if (threads == 0 || threads > 1024 || block_extent.z > 64)
    return refuse(cudaErrorInvalidConfiguration, text("a block of %u x %u x %u threads; at most 1024, and 64 in z",
                                                      block_extent.x, block_extent.y, block_extent.z));
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return refuse(cudaErrorInvalidConfiguration,
                  text("a grid of %u x %u x %u blocks; at least 1 each, at most 2147483647 x 65535 x 65535", grid.x,
                       grid.y, grid.z));
  if (launch.argument_bytes > 4096)
    return refuse(cudaErrorInvalidConfiguration, text("%zu bytes of arguments; at most 4096", launch.argument_bytes));
  const auto found = opted_in().find(launch.kernel.key);
  const std::size_t allowed = found == opted_in().end() ? static_shared_limit : std::size_t(found->second);
  if (launch.shared_bytes > std::max(allowed, static_shared_limit))
    return refuse(cudaErrorInvalidConfiguration,
                  text("%zu bytes of dynamic shared memory; the kernel may have %zu", launch.shared_bytes, allowed));
  return submit(stream, kernel_name(launch.kernel), [launch, arguments] { run_launch(launch); });
}

}  // namespace cuda_on_host

using namespace cuda_on_host;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInitializationError:
      return "cudaErrorInitializationError";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidMemcpyDirection:
      return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorStubLibrary:
      return "cudaErrorStubLibrary";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
      return "cudaErrorNotReady";
    case cudaErrorLaunchOutOfResources:
      return "cudaErrorLaunchOutOfResources";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorUnknown:
      return "cudaErrorUnknown";
  }
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }
cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaDriverGetVersion(int* version) {
  *version = no_device() && options().no_device != cudaErrorNoDevice ? 0 : 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  if (no_device()) return report(options().no_device);
  *count = options().device_count;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  if (no_device()) return report(options().no_device);
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (no_device()) return report(options().no_device);
  if (device < 0 || device >= options().device_count) return report(cudaErrorInvalidDevice);
  current_device = device;
  contexts().insert(device);  // as of CUDA 12
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (no_device()) return report(options().no_device);
  if (device < 0 || device >= options().device_count) return report(cudaErrorInvalidDevice);
  cudaDeviceProp filled{};
  std::strcpy(filled.name, "host execution of CUDA kernels");
  filled.totalGlobalMem = options().device_memory;
  filled.sharedMemPerBlock = static_shared_limit;
  filled.regsPerBlock = filled.regsPerMultiprocessor = 65536;
  filled.warpSize = 32;
  filled.maxThreadsPerBlock = 1024;
  filled.maxThreadsDim[0] = filled.maxThreadsDim[1] = 1024, filled.maxThreadsDim[2] = 64;
  filled.maxGridSize[0] = 0x7fffffff, filled.maxGridSize[1] = filled.maxGridSize[2] = 65535;
  filled.major = options().major, filled.minor = options().minor;
  filled.multiProcessorCount = options().multiprocessors;
  filled.l2CacheSize = 40 << 20;
  filled.maxThreadsPerMultiProcessor = 2048;
  filled.sharedMemPerMultiprocessor = options().shared_optin + 1024;
  filled.sharedMemPerBlockOptin = options().shared_optin;
  filled.memoryPoolsSupported = 1;
  filled.asyncEngineCount = 2;
  *properties = filled;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, device);
  if (status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = properties.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = int(properties.sharedMemPerBlock);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      *value = properties.maxThreadsPerMultiProcessor;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = int(properties.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(properties.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMemoryPoolsSupported:
      *value = properties.memoryPoolsSupported;
      break;
    default:
      return report(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  CUDA_ON_HOST_NOT_WHILE_CAPTURING;
  synchronize_all();
  return cudaSuccess;
}
cudaError_t cudaDeviceReset() { return cudaDeviceSynchronize(); }

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  if (no_device()) return report(options().no_device);
  if (capturing_strictly()) return report(cudaErrorStreamCaptureUnsupported);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = allocate_device_memory(bytes);
  return *pointer != nullptr ? cudaSuccess : report(cudaErrorMemoryAllocation);
}
cudaError_t cudaFree(void* pointer) {
  if (pointer == nullptr) return no_device() ? report(options().no_device) : cudaSuccess;
  CUDA_ON_HOST_NOT_WHILE_CAPTURING;
  synchronize_all();
  free_device_memory(pointer);
  return cudaSuccess;
}
// The memory can be used at once in the call's stream; other streams have to wait for it, which is not checked here.
cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t stream) {
  if (!is_stream(stream)) return report(cudaErrorInvalidResourceHandle);
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  if (pointer == nullptr) return report(cudaErrorInvalidValue);
  if (!is_live_allocation(pointer)) throw Fault("cudaFreeAsync of a pointer that is no live device allocation");
  const auto free = [=] { free_device_memory(pointer); };
  return submit(stream, "cudaFreeAsync", free, free);
}
cudaError_t cudaMallocHost(void** pointer, std::size_t bytes, unsigned) {
  CUDA_ON_HOST_NOT_WHILE_CAPTURING;
  *pointer = std::malloc(std::max<std::size_t>(bytes, 1));
  if (*pointer == nullptr) return report(cudaErrorMemoryAllocation);
  std::memset(*pointer, 0xFF, bytes);
  pinned()[reinterpret_cast<std::uintptr_t>(*pointer)] = {bytes};
  return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, std::size_t bytes, unsigned flags) {
  return cudaMallocHost(pointer, bytes, flags);
}
cudaError_t cudaFreeHost(void* pointer) {
  if (pointer == nullptr) return cudaSuccess;
  const auto found = pinned().find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == pinned().end()) return report(cudaErrorInvalidValue);
  if (found->second.pending > 0) throw Fault("cudaFreeHost of pinned memory that an asynchronous copy still uses");
  pinned().erase(found);
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  if (no_device()) return report(options().no_device);
  *total = options().device_memory;
  *free = *total - std::min(*total, device_bytes_in_use());
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  if (no_device()) return report(options().no_device);
  void* address = const_cast<void*>(pointer);
  const bool device = on_device(pointer), host = find_pinned(pointer, 1) != nullptr;
  *attributes = {device ? cudaMemoryTypeDevice
                 : host ? cudaMemoryTypeHost
                        : cudaMemoryTypeUnregistered,
                 current_device, device || host ? address : nullptr, host ? address : nullptr};
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (no_device()) return report(options().no_device);
  if (!direction_is_right(to, from, kind)) return report(cudaErrorInvalidMemcpyDirection);
  if (!on_device(from) &&
      find_pinned(from, bytes) == nullptr) {  // pageable: the runtime takes a copy before it returns
    auto staged = std::make_shared<std::vector<unsigned char>>(bytes);
    std::memcpy(staged->data(), from, bytes);
    return submit(stream, "cudaMemcpyAsync", [=] { copy_now(to, staged->data(), bytes); });
  }
  if (!on_device(to) && find_pinned(to, bytes) == nullptr) {  // pageable: the call returns when the copy is done
    if (capturing()) return report(cudaErrorStreamCaptureUnsupported);
    const cudaError_t status = submit(stream, "cudaMemcpyAsync", [=] { copy_now(to, from, bytes); });
    if (status == cudaSuccess) synchronize(stream);
    return status;
  }
  // Pinned: read or written when the stream comes to it. What is there before says nothing, so it is filled with NaN.
  Pinned* used[] = {find_pinned(to, bytes), find_pinned(from, bytes)};
  const auto count = [=](int change) {
    for (Pinned* memory : used) {
      if (memory != nullptr) memory->pending += change;
    }
  };
  if (used[0] != nullptr && !capturing()) std::memset(to, 0xFF, bytes);
  if (capturing()) return submit(stream, "cudaMemcpyAsync", [=] { copy_now(to, from, bytes); });
  count(1);
  const auto copy = [=] {
    count(-1);
    copy_now(to, from, bytes);
  };
  return submit(stream, "cudaMemcpyAsync", copy, [=] { count(-1); });
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  CUDA_ON_HOST_NOT_WHILE_CAPTURING;
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  if (status != cudaSuccess) return status;
  synchronize(nullptr);
  return cudaSuccess;
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from, std::size_t from_pitch,
                              std::size_t width, std::size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width > to_pitch || width > from_pitch) return report(cudaErrorInvalidValue);
  for (std::size_t row = 0; row < height; ++row) {
    const cudaError_t status = cudaMemcpyAsync(static_cast<char*>(to) + row * to_pitch,
                                               static_cast<const char*>(from) + row * from_pitch, width, kind, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (no_device()) return report(options().no_device);
  return submit(stream, "cudaMemsetAsync", [=] { set_now(to, value, bytes); });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {  // asynchronous for the host, as CUDA's
  CUDA_ON_HOST_NOT_WHILE_CAPTURING;
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  if (no_device()) return report(options().no_device);
  if (device < 0 || device >= options().device_count) return report(cudaErrorInvalidDevice);
  *pool = reinterpret_cast<cudaMemPool_t>(std::uintptr_t(device) + 1);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetMemPool(cudaMemPool_t* pool, int device) { return cudaDeviceGetDefaultMemPool(pool, device); }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void*) {
  return attribute <= cudaMemPoolAttrReleaseThreshold || attribute == cudaMemPoolAttrReservedMemHigh ||
                 attribute == cudaMemPoolAttrUsedMemHigh
             ? cudaSuccess
             : report(cudaErrorInvalidValue);
}
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr attribute, void* value) {
  switch (attribute) {
    case cudaMemPoolAttrReservedMemCurrent:
    case cudaMemPoolAttrUsedMemCurrent:
      *static_cast<std::uint64_t*>(value) = device_bytes_in_use();
      break;
    case cudaMemPoolAttrReservedMemHigh:
    case cudaMemPoolAttrUsedMemHigh:
      *static_cast<std::uint64_t*>(value) = device_bytes_at_most();
      break;
    default:
      return report(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, std::size_t) { return cudaSuccess; }

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (no_device()) return report(options().no_device);
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || std::size_t(value) > options().shared_optin) return report(cudaErrorInvalidValue);
  opted_in()[kernel] = value;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  *attributes = {};
  attributes->maxThreadsPerBlock = 1024;
  attributes->numRegs = 64;
  attributes->binaryVersion = attributes->ptxVersion = options().major * 10 + options().minor;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int block_size,
                                                          std::size_t shared) {
  const int by_threads = 2048 / std::max(block_size, 1);
  const int by_shared = shared == 0 ? 32 : int(options().shared_optin / shared);
  *blocks = std::min({by_threads, by_shared, 32});
  return cudaSuccess;
}
