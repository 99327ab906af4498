// A device's memory: where the pools get it from, and the way of numbers from the host to the device and back.
//
// A MemoryPool hands a block out again as soon as its last handle is gone, although kernels that use it may still wait
// in the stream. That is right because there is one stream: the next user's kernels wait behind them. Memory comes from
// cudaMalloc, since the pool asks for it in the first step only; cudaFree waits for the device.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "strata/cuda/launch.cuh"
#include "strata/cuda/workspace.cuh"
#include "strata/tensor/device.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

class DeviceMemory : public MemorySource {
 public:
  explicit DeviceMemory(int index) : index_(index) {}
  Device device() const override { return Device::cuda(index_); }

  void* allocate(std::size_t bytes) override {
    void* memory = nullptr;
    check_runtime(cudaSetDevice(index_), "choosing a device");
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();  // it is told here, and must not be told again by the next call
      std::size_t free = 0, total = 0;
      (void)cudaMemGetInfo(&free, &total);
      throw DeviceError(concat(device().str(), ": no memory for ", bytes, " bytes; ", free, " of ", total,
                               " are free: use smaller batches or images"));
    }
    check_runtime(status, concat("taking ", bytes, " bytes of memory"));
    return memory;
  }
  void deallocate(void* memory, std::size_t) noexcept override { (void)cudaFree(memory); }

 private:
  int index_;
};

/// Memory of a recording: kept until the recording goes, since its replays use it.
class RecordingMemory final : public DeviceMemory {
 public:
  using DeviceMemory::DeviceMemory;
  ~RecordingMemory() override {
    for (void* memory : all_) (void)cudaFree(memory);
  }
  void* allocate(std::size_t bytes) override {
    all_.reserve(all_.size() + 1);
    all_.push_back(DeviceMemory::allocate(bytes));
    return all_.back();
  }
  void deallocate(void*, std::size_t) noexcept override {}

 private:
  std::vector<void*> all_;
};

/// Copies from the host that overlap with kernels. A piece goes to pinned memory, from there on a stream of its own to
/// a buffer on the device, and from there, in the order of the kernels' stream, to where it is wanted: the slow way
/// over the bus runs beside the kernels queued before, and only the last and fast one waits for them.
class Uploader {
 public:
  explicit Uploader(cudaStream_t kernels) : kernels_(kernels) {}
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;
  ~Uploader() {
    if (copies_ == nullptr) return;
    (void)cudaStreamSynchronize(copies_);
    for (Slot& slot : slots_) {
      (void)cudaEventDestroy(slot.copied);
      (void)cudaEventDestroy(slot.taken);
      (void)cudaFreeHost(slot.pinned);
      (void)cudaFree(slot.buffer);
    }
    (void)cudaStreamDestroy(copies_);
  }

  /// The host memory is free when it returns.
  void upload(void* to, const void* host, std::size_t bytes) {
    if (copies_ == nullptr) open();
    for (std::size_t done = 0; done < bytes;) {
      const std::size_t part = std::min(slot_bytes, bytes - done);
      Slot& slot = slots_[next_];
      next_ = (next_ + 1) % slots_.size();
      check_runtime(cudaEventSynchronize(slot.copied), "waiting for an earlier copy");  // the pinned memory is free
      std::memcpy(slot.pinned, static_cast<const char*>(host) + done, part);
      check_runtime(cudaStreamWaitEvent(copies_, slot.taken), "ordering copies");  // so is the buffer
      check_runtime(cudaMemcpyAsync(slot.buffer, slot.pinned, part, cudaMemcpyHostToDevice, copies_),
                    "copying to the device");
      check_runtime(cudaEventRecord(slot.copied, copies_), "ordering copies");
      check_runtime(cudaStreamWaitEvent(kernels_, slot.copied), "ordering copies");
      check_runtime(
          cudaMemcpyAsync(static_cast<char*>(to) + done, slot.buffer, part, cudaMemcpyDeviceToDevice, kernels_),
          "copying on the device");
      check_runtime(cudaEventRecord(slot.taken, kernels_), "ordering copies");
      done += part;
    }
  }

 private:
  static constexpr std::size_t slot_bytes = std::size_t{4} << 20;
  struct Slot {
    void *pinned = nullptr, *buffer = nullptr;
    cudaEvent_t copied = nullptr, taken = nullptr;
  };

  void open() {
    check_runtime(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "making a stream for copies");
    for (Slot& slot : slots_) {
      check_runtime(cudaHostAlloc(&slot.pinned, slot_bytes, cudaHostAllocDefault), "taking pinned memory");
      check_runtime(cudaMalloc(&slot.buffer, slot_bytes), "taking a buffer for copies");
      check_runtime(cudaEventCreateWithFlags(&slot.copied, cudaEventDisableTiming), "making an event");
      check_runtime(cudaEventCreateWithFlags(&slot.taken, cudaEventDisableTiming), "making an event");
    }
  }

  cudaStream_t kernels_, copies_ = nullptr;
  std::array<Slot, 3> slots_{};
  std::size_t next_ = 0;
};

}}}  // namespace strata::STRATA_ABI::cuda
