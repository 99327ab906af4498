// What calls of a library need besides the library: memory for the length of a call, and a clock.
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

/// Throws DeviceError, with CUDA's words, unless `status` is success.
inline void check_runtime(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess)
    throw DeviceError(concat("CUDA: ", what, ": ", cudaGetErrorString(status), " (", cudaGetErrorName(status), ")"));
}

/// Uninitialised device memory that lives on a stream: taken and given back in the order of the work queued on it.
class DeviceScratch {
 public:
  DeviceScratch(std::size_t bytes, cudaStream_t stream) : stream_(stream) {
    check_runtime(cudaMallocAsync(&data_, bytes, stream), concat("taking ", bytes, " bytes of device memory"));
  }
  DeviceScratch(DeviceScratch&& other) noexcept : data_(std::exchange(other.data_, nullptr)), stream_(other.stream_) {}
  DeviceScratch& operator=(DeviceScratch other) noexcept {
    std::swap(data_, other.data_);
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~DeviceScratch() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

/// One piece of device memory that successive calls on a stream share; it grows to what the largest asked for.
class Workspace {
 public:
  explicit Workspace(cudaStream_t stream) : stream_(stream) {}
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  ~Workspace() {
    if (data_ != nullptr) cudaFreeAsync(data_, stream_);
  }

  cudaStream_t stream() const { return stream_; }

  /// At least `bytes` bytes, until the next call; nullptr for none.
  void* get(std::size_t bytes) {
    if (bytes > size_) {
      if (capturing())
        throw DeviceError("CUDA: a workspace cannot grow while its stream is recorded: run the same work once before");
      if (data_ != nullptr)
        check_runtime(cudaFreeAsync(std::exchange(data_, nullptr), stream_), "giving a workspace back");
      size_ = 0;
      check_runtime(cudaMallocAsync(&data_, bytes, stream_), concat("taking a workspace of ", bytes, " bytes"));
      size_ = bytes;
    }
    return bytes > 0 ? data_ : nullptr;
  }

  void synchronize() const { check_runtime(cudaStreamSynchronize(stream_), "waiting for a stream"); }

  /// Whether the stream is being recorded into a graph: then nothing may be timed or waited for.
  bool capturing() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_runtime(cudaStreamIsCapturing(stream_, &status), "asking a stream whether it is recorded");
    return status != cudaStreamCaptureStatusNone;
  }

 private:
  cudaStream_t stream_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

/// The least time that work() took on the stream in three runs, after one that is not counted.
template <class Work>
float least_milliseconds(cudaStream_t stream, Work&& work) {
  struct Event {
    cudaEvent_t event = nullptr;
    Event() { check_runtime(cudaEventCreate(&event), "making an event"); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(event); }
  } begin, end;
  work();
  float least = 0;
  for (int run = 0; run < 3; ++run) {
    check_runtime(cudaEventRecord(begin.event, stream), "starting the clock");
    work();
    check_runtime(cudaEventRecord(end.event, stream), "stopping the clock");
    check_runtime(cudaEventSynchronize(end.event), "waiting for timed work");
    float milliseconds = 0;
    check_runtime(cudaEventElapsedTime(&milliseconds, begin.event, end.event), "reading the clock");
    least = run == 0 ? milliseconds : std::min(least, milliseconds);
  }
  return least;
}

}}}  // namespace strata::STRATA_ABI::cuda
