// What a test says to the host execution of kernels, and what it gets back.
//
//     cuda_on_host::options().order = cuda_on_host::Order::reverse;
//     cuda_on_host::DeviceArray<float> x(values);          // exactly as large as it says, NaN where not given
//     strata::cuda::launch<&kernel>(1, 64, 0, nullptr, x.size(), x.data());
//     CHECK_THROWS_WITH_AS(cudaDeviceSynchronize(), ..., cuda_on_host::Fault);
#pragma once

#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace cuda_on_host {

/// A kernel did what CUDA does not allow. Thrown by the call that waits for the kernel.
class Fault : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// In which order threads run, and blocks. Threads switch at barriers and warp operations only; in random order the
/// warps of a block also take turns at the latter.
enum class Order { forward, reverse, random };

struct Options {
  Order order = Order::forward;
  std::uint64_t seed = 1;
  bool check_accesses =
      true;            ///< bounds, initialisation and races, where the kernels are compiled with instrumentation
  bool count = false;  ///< fill counters(); where the kernels are compiled with instrumentation
  int device_count = 1;
  cudaError no_device = cudaErrorNoDevice;  ///< what a call returns where device_count is 0
  int major = 8, minor = 0;                 ///< compute capability
  int multiprocessors = 108;
  std::size_t device_memory = std::size_t{8} << 30;
  std::size_t shared_optin = 163 * 1024;  ///< the most dynamic shared memory a block can ask for
};
Options& options();

/// Whether somebody has chosen a device since forget_contexts(): that makes a context there, which takes memory.
bool has_context(int device);
void forget_contexts();

/// True where some kernel of the program was compiled with instrumentation, so that its accesses are seen.
bool instrumented();

/// What a kernel did in all launches since counters were reset, by kernel.
struct Counters {
  std::string kernel;
  std::uint64_t launches = 0, blocks = 0, threads = 0, barriers = 0;
  unsigned block_threads = 0;    ///< of the last launch
  std::size_t shared_bytes = 0;  ///< of the last launch, static and dynamic
  std::uint64_t load_accesses = 0, load_bytes = 0, load_sectors = 0, load_ideal_sectors = 0;  ///< global memory
  std::uint64_t store_accesses = 0, store_bytes = 0, store_sectors = 0,
                store_ideal_sectors = 0;                        ///< sectors of 32 bytes
  std::uint64_t load_unique_bytes = 0, store_unique_bytes = 0;  ///< each element once for each launch: DRAM's share
  std::uint64_t shared_accesses = 0, shared_wavefronts = 0, shared_ideal_wavefronts = 0;
  std::uint64_t partial_accesses = 0;  ///< warp accesses to memory in which some live lane took no part
  std::uint64_t atomics = 0;
  std::uint64_t matrix_operations = 0;  ///< multiply-adds of mma instructions
};
std::vector<Counters> counters();
void reset_counters();

/// The number of operations that wait in streams.
std::size_t pending_operations();
/// The device allocations that are alive.
std::size_t live_allocations();
std::size_t live_device_bytes();

/// Memory of the device, one allocation of exactly size elements.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(std::size_t size) : size_(size) {
    if (cudaMalloc(&data_, size * sizeof(T)) != cudaSuccess) throw Fault("DeviceArray: out of device memory");
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) { upload(values); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(std::span<const T>(values)) {}
  DeviceArray(DeviceArray&& other) noexcept : data_(other.data_), size_(other.size_) {
    other.data_ = nullptr, other.size_ = 0;
  }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_), std::swap(size_, other.size_);
    return *this;
  }
  /// Waits for all work, as cudaFree does, and so can throw a Fault.
  ~DeviceArray() noexcept(false) {
    if (std::uncaught_exceptions() == 0) {
      (void)cudaFree(data_);
    } else {
      try {
        (void)cudaFree(data_);
      } catch (const Fault&) {  // one is on its way already
      }
    }
  }

  T* data() const { return data_; }
  std::size_t size() const { return size_; }
  void upload(std::span<const T> values) {
    if (cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice) != cudaSuccess)
      throw Fault("DeviceArray: the copy to the device failed");
  }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    if (cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost) != cudaSuccess)
      throw Fault("DeviceArray: the copy from the device failed");
    return values;
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace cuda_on_host
