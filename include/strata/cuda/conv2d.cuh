// 2-D convolution on the device by Strata's own kernels, and which of them computes what:
//
//     1 to 4 channels on one side            conv2d_thin.cuh, float32 always
//     3 x 3, stride 1, 16 channels, fp32     winograd.cuh
//     groups, padding that is not zeros,     conv2d_general.cuh, float32 always
//     kernels that are not square
//     all else                               conv2d_gather.cuh, conv2d_weight.cuh, in the precision that is asked for
//
// Workspaces come from the device's pool and go back to it when the launches are queued.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "strata/cuda/conv2d_gather.cuh"
#include "strata/cuda/conv2d_general.cuh"
#include "strata/cuda/conv2d_thin.cuh"
#include "strata/cuda/conv2d_weight.cuh"
#include "strata/cuda/winograd.cuh"
#include "strata/kernels/accelerator.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cuda {

/// Throws ShapeError for extents that make no convolution, or more elements than kernels count.
inline void check_device_conv2d(const Conv2dProblem& p) {
  check_conv2d(p);
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - (1 << 20);
  if (p.input_size() > most || p.output_size() > most || p.weight_size() > most)
    throw ShapeError(concat("conv2d on the device: ", p.n, "x", p.in, "x", p.h, "x", p.w, " to ", p.out,
                            " channels is more than ", most, " elements: use smaller batches or tiles"));
}

/// `count` floats of device memory for the length of a scope.
class DeviceFloats {
 public:
  DeviceFloats(MemoryPool& pool, std::int64_t count) : storage_(pool.take(std::size_t(count) * sizeof(float))) {}
  float* data() const { return static_cast<float*>(storage_.data()); }

 private:
  Storage storage_;
};

/// result = end(gather), by the kernel that suits it.
inline cudaError_t run_gather(cudaStream_t stream, MemoryPool& pool, const Conv2dProblem& p, const Gather& g, bool turned,
                              Precision precision, const float* source, const float* weight, const ConvolutionEnd& end,
                              float* result) {
  if (is_thin_source(g)) {
    const DeviceFloats packed(pool, thin_source_packed_size(g));
    return thin_source_gather(stream, g, source, weight, packed.data(), end, result);
  }
  if (is_thin_result(g)) {
    const DeviceFloats packed(pool, thin_result_packed_size(g));
    return thin_result_gather(stream, g, source, weight, packed.data(), end, result);
  }
  if (precision == Precision::fp32 && use_winograd(p, g.result_h, g.result_w)) {
    const WinogradPlan plan(g.n, g.result_h, g.result_w, g.source_c, g.result_c);
    const DeviceFloats workspace(pool, winograd_workspace(plan, g.source_c, g.result_c));
    return winograd_gather(stream, g, turned, source, weight, workspace.data(), end, result);
  }
  const DeviceFloats packed(pool, packed_size(g));
  const cudaError_t status = pack_weights(stream, g, weight, packed.data());
  return status != cudaSuccess ? status : gather(stream, g, precision, source, packed.data(), end, result);
}

/// y = activation(bias + x * weight), or y += x * weight.
inline cudaError_t conv2d_forward(cudaStream_t stream, MemoryPool& pool, const Conv2dProblem& p, const float* x,
                                  const float* weight, const float* bias, float* y, Activation activation, bool accumulate,
                                  Precision precision) {
  check_device_conv2d(p);
  if (accumulate && (bias != nullptr || activation != Activation::none))
    throw ValueError("conv2d: a result that is added to has neither bias nor activation");
  if (p.general()) return general_forward(stream, p, x, weight, bias, y, activation == Activation::relu, accumulate);
  return run_gather(stream, pool, p, Gather::forward(p), false, precision, x, weight,
                    {bias, activation == Activation::relu, accumulate}, y);
}

/// dx (+)= the gradient for the input.
inline cudaError_t conv2d_backward_input(cudaStream_t stream, MemoryPool& pool, const Conv2dProblem& p, const float* dy,
                                         const float* weight, float* dx, bool accumulate, Precision precision) {
  check_device_conv2d(p);
  if (p.general()) return general_backward_input(stream, p, dy, weight, dx, accumulate);
  for (int a = 0; a < std::min<std::int64_t>(p.stride, p.h); ++a)
    for (int b = 0; b < std::min<std::int64_t>(p.stride, p.w); ++b) {
      const cudaError_t status = run_gather(stream, pool, p, Gather::backward(p, a, b), true, precision, dy, weight,
                                            {nullptr, false, accumulate}, dx);
      if (status != cudaSuccess) return status;
    }
  return cudaSuccess;
}

/// dweight and dbias (+)= their gradients, those of the two that are wanted.
inline cudaError_t conv2d_backward_weight(cudaStream_t stream, MemoryPool& pool, const Conv2dProblem& p, const float* x,
                                          const float* dy, const GradientTarget<>& dweight, const GradientTarget<>& dbias,
                                          Precision precision) {
  check_device_conv2d(p);
  const std::int64_t pixels = p.n * p.out_h() * p.out_w();
  cudaError_t status = cudaSuccess;
  if (dbias.data != nullptr) {
    const DeviceFloats workspace(pool, ColumnPlan(pixels, p.out).workspace(p.out, 1));
    status = sum_columns<1>(stream, pixels, p.out, ColumnTerm{dy}, workspace.data(), WriteColumn{dbias.data, dbias.accumulate});
  }
  if (dweight.data == nullptr || status != cudaSuccess) return status;
  if (p.general()) {
    const DeviceFloats partial(pool, general_ranges(p) * p.weight_size());
    return general_backward_weight(stream, p, x, dy, partial.data(), dweight.data, dweight.accumulate);
  }
  if (!is_thin_weight(p) && precision == Precision::fp32 && use_winograd(p, p.out_h(), p.out_w())) {
    const DeviceFloats workspace(pool, WinogradWeightPlan(p).workspace(p));
    return winograd_backward_weight(stream, p, x, dy, workspace.data(), dweight.data, dweight.accumulate);
  }
  const int taps = p.kernel * p.kernel;
  const WeightShape shape = WeightShape::taps(p);
  const ThinWeightShape thin(p);
  const int ranges = is_thin_weight(p) ? ThinWeightPlan(thin).ranges : WeightPlan(shape, taps).ranges;
  const DeviceFloats partial(pool, ranges * p.weight_size());
  status = is_thin_weight(p) ? thin_weight_products(stream, thin, x, dy, partial.data())
                             : weight_products(stream, shape, taps, precision, dy, x, partial.data());
  if (status != cudaSuccess) return status;
  return elementwise(stream, p.weight_size(),
                     SumRanges{partial.data(), dweight.data, p.weight_size(), ranges, dweight.accumulate});
}

}  // namespace strata::inline STRATA_ABI::cuda
