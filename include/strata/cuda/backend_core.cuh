// What every part of the CUDA backend stands on: the device's context, its memory, and the checks of arguments.
#pragma once

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <string>

#include "strata/cuda/context.cuh"
#include "strata/cuda/elementwise.cuh"
#include "strata/cuda/workspace.cuh"
#include "strata/kernels/accelerator.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

class BackendCore : public Accelerator {
 public:
  /// Throws DeviceError, with the reason, where there is no such device.
  explicit BackendCore(int index) : context_(index) {}

  Device device() const override { return context_.device(); }
  std::string name() const override { return context_.name(); }
  cudaStream_t stream() const { return context_.stream(); }

  // ---- memory

  MemoryPool& pool() override { return context_.pool(); }
  void upload(void* to, const void* host, std::size_t bytes) override {
    context_.not_while_recording("upload");
    (void)stream();  // makes the device the current one
    context_.uploader().upload(to, host, bytes);
  }
  void download(void* host, const void* from, std::size_t bytes) override {
    context_.not_while_recording("download");
    if (bytes == 0) return;
    done(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream()), "download");
    done(cudaStreamSynchronize(stream()), "download");
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes > 0) done(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream()), "copy");
  }
  void fill(float* to, std::int64_t count, float value) override {
    done(elementwise(stream(), count, Fill{to, value}), "fill");
  }
  void synchronize() override {
    context_.not_while_recording("synchronize");
    done(cudaStreamSynchronize(stream()), "synchronize");
  }
  void begin_recording() override { context_.begin_recording(); }
  std::unique_ptr<RecordedWork> end_recording() override { return context_.end_recording(); }
  void update_where_finite(const float* number) override { context_.update_where_finite(number); }

 protected:
  static constexpr std::int64_t most_blocks_y = 65535;

  void done(cudaError_t status, const char* what) const {
    if (status != cudaSuccess) check_runtime(status, concat(what, " on ", device().str()));
  }

  void check_precision(Precision precision) const {
    if ((precision == Precision::tf32 || precision == Precision::bf16) && context_.capability() < 80)
      throw ValueError(concat(name(), ": tf32 and bf16 want compute capability 8.0; use fp32 or fp16"));
  }
  /// Throws ShapeError where kernels that count elements in 31 bits cannot.
  static void check_size(const char* who, std::int64_t size) {
    if (size < 0 || size > std::numeric_limits<std::int32_t>::max() - 4096)
      throw ShapeError(concat(who, ": ", size, " elements are more than this kernel counts: use smaller batches"));
  }
  /// As above for the product of extents, none below 1, which may be too large for 64 bits.
  static void check_size(const char* who, std::initializer_list<std::int64_t> extents) {
    std::int64_t size = 1;
    for (const std::int64_t extent : extents)
      if (__builtin_mul_overflow(size, extent, &size)) size = std::numeric_limits<std::int64_t>::max();
    check_size(who, size);
  }
  static void check_channels(const char* who, std::int64_t pixels, int channels) {
    if (pixels < 1 || channels < 1)
      throw ShapeError(concat(who, ": got ", pixels, " pixels of ", channels, " channels"));
    if (!ChannelOf::fits(pixels * channels, channels)) check_size(who, pixels * channels);
  }

  Context context_;
};

}}}  // namespace strata::STRATA_ABI::cuda
