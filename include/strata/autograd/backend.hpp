// The kernels behind the layers, on the device where the numbers are: the CPU's own, called directly, or an
// accelerator's. Each function has the CPU kernel's arguments behind the device.
//
//     st::backend::relu_forward(x.device(), x.size(), x.data(), y.data());
//
// Accelerators compute in float32: anything else on one is a DeviceError.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <type_traits>

#include "strata/autograd/parameter.hpp"
#include "strata/autograd/tape.hpp"
#include "strata/core/error.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/compiled_kernels.hpp"
#include "strata/kernels/accelerator.hpp"
#include "strata/kernels/transfer.hpp"
#include "strata/math/precision.hpp"

namespace strata { inline namespace STRATA_ABI {

constexpr bool on_accelerator(Device device) { return device.kind != DeviceKind::cpu; }

namespace detail {

[[noreturn]] inline void throw_not_float(Device device) {
  throw DeviceError(
      concat("float64 on ", device.str(), ": accelerators compute in float32; keep such a network on the cpu"));
}

/// on_cpu(), or on_device(accelerator) where `device` is one. on_device takes auto&, so that it is compiled for float
/// only.
template <class T, class OnCpu, class OnDevice>
void dispatch(Device device, OnCpu&& on_cpu, OnDevice&& on_device) {
  if (!on_accelerator(device)) return on_cpu();
  if constexpr (std::is_same_v<T, float>)
    on_device(accelerator(device));
  else
    throw_not_float(device);
}

/// f.operator()<Factor>() with what the CPU's convolutions of T multiply in.
template <class T, class F>
void with_cpu_factor(Precision precision, F&& f) {
  if (precision == Precision::fp32) return f.template operator()<T>();
  if (precision != Precision::bf16)
    throw ValueError("conv2d: the cpu computes in fp32 or bf16; other precisions need an accelerator");
  if (!std::is_same_v<T, float>) throw ValueError("conv2d: bf16 is for networks of float32; this one is of float64");
  if constexpr (std::is_same_v<T, float> && cpu::bfloat16_instructions)
    f.template operator()<cpu::Bfloat16>();
  else
    throw ValueError(
        "conv2d: bf16 on the cpu wants a program compiled for a processor with AVX512-BF16 (-march=native on one); "
        "this one is compiled for " STRATA_ISA " without it, where fp32 is faster");
}

/// Where a parameter's gradient goes; nowhere when it wants none.
template <class T = float>
GradientTarget<T> gradient_target(Parameter& parameter) {
  if (!parameter.requires_grad) return {};
  return parameter.grad_target<T>();
}

/// The gradient target for a value that is added to in any order: zeros when nobody has written to it yet.
template <class T>
T* zeroed_target(Device device, Tape& tape, std::int64_t id, std::int64_t size) {
  const auto target = tape.target<T>(id);
  if (target && !target.accumulate)
    dispatch<T>(
        device, [&] { std::fill_n(target.data, size, T(0)); }, [&](auto& gpu) { gpu.fill(target.data, size, 0); });
  return target.data;
}

/// Four rows of numbers of each channel, as accelerators normalise by them.
inline NormalisationRows normalisation_rows(Tensor<float>& numbers) {
  float* const first = numbers.data();
  const std::int64_t channels = numbers.size() / 4;
  return {first, first + channels, first + 2 * channels, first + 3 * channels};
}

inline RandomStream stream_of(const Rng& rng) {
  return {.seed = rng.seed(), .a = rng.stream()[0], .b = rng.stream()[1], .word = rng.position()};
}

}  // namespace detail

/// Throws DeviceError unless a layer's tensor is where its input is. name() is what to call the layer.
template <class Name>
void check_same_device(Device images, Device layer, Name&& name) {
  if (images != layer)
    throw DeviceError(concat(name(), ": the images are on ", images.str(), " and the layer's weights on ", layer.str(),
                             ": move one with st::to(net, device) or x.to(device)"));
}

/// For layers that accelerators have no kernel for: throws DeviceError unless the images, and the layer's weights, are
/// on the CPU.
template <class Name>
void check_on_cpu(Device images, Device layer, Name&& name) {
  check_same_device(images, layer, name);
  if (on_accelerator(images))
    throw DeviceError(concat(name(), " runs on the cpu, and the network and its images are on ", images.str(),
                             ": bring them back with st::to(net, st::Device::cpu()) and x.to(st::Device::cpu())"));
}

namespace backend {

/// On the CPU `precision` must be fp32, or bf16 of float32 where the processor multiplies in it: ValueError. The fusion
/// is the CPU's.
template <class T>
void conv2d_forward(Device device, const Conv2dProblem& problem, const T* x, const T* weight, const T* bias, T* y,
                    Activation activation, Precision precision, const cpu::Conv2dForwardFusion<T>& fusion = {}) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          cpu::conv2d_forward<T, Factor>(problem, x, weight, bias, y, activation, fusion);
        });
      },
      [&](auto& gpu) { gpu.conv2d_forward(problem, x, weight, bias, y, activation, fusion.accumulate, precision); });
}

/// The same with the weights that weights() gives. The form that the CPU's kernels read is kept in `cache` under key(),
/// a checksum of what the weights come from.
template <class T, class Key, class Weights>
void conv2d_forward_cached(Device device, const Conv2dProblem& problem, const T* x, cpu::PackedWeights& cache,
                           Key&& key, Weights&& weights, const T* bias, T* y, Activation activation,
                           Precision precision) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          const std::uint64_t kept = cpu::conv2d_packed_bytes(problem) > 0 ? key() : 0;  // else it is not looked at
          cpu::conv2d_forward_cached<T, Factor>(problem, x, cache, kept, weights, bias, y, activation);
        });
      },
      [&](auto& gpu) { gpu.conv2d_forward(problem, x, weights(), bias, y, activation, false, precision); });
}

/// With groups, or with padding that is not zeros. Form: cpu::group_form<T> of the channels.
template <int Form, class T>
void general_conv2d_forward(Device device, const Conv2dProblem& problem, const T* x, const T* weight, const T* bias,
                            T* y, Activation activation, Precision precision) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          cpu::general_forward<Form, T, std::conditional_t<Form == cpu::groups_apart, Factor, T>>(problem, x, weight,
                                                                                                  bias, y, activation);
        });
      },
      [&](auto& gpu) { gpu.conv2d_forward(problem, x, weight, bias, y, activation, false, precision); });
}
template <int Form, class T>
void general_conv2d_backward_input(Device device, const Conv2dProblem& problem, const T* dy, const T* weight, T* dx,
                                   bool accumulate, Precision precision) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          cpu::general_backward_input<Form, T, std::conditional_t<Form == cpu::groups_apart, Factor, T>>(
              problem, dy, weight, dx, accumulate);
        });
      },
      [&](auto& gpu) { gpu.conv2d_backward_input(problem, dy, weight, dx, accumulate, precision); });
}

/// A bias, which makes it a transposed convolution, is the CPU's as well.
template <class T>
void conv2d_backward_input(Device device, const Conv2dProblem& problem, const T* dy, const T* weight, T* dx,
                           bool accumulate, Precision precision, const NormGradientSums<T>& sums = {},
                           const T* bias = nullptr) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          cpu::conv2d_backward_input<T, Factor>(problem, dy, weight, dx, accumulate, sums, bias);
        });
      },
      [&](auto& gpu) { gpu.conv2d_backward_input(problem, dy, weight, dx, accumulate, precision); });
}

/// A transposed convolution with weights that stay: see conv2d_forward_cached.
template <class T, class Key, class Weights>
void conv2d_transposed_cached(Device device, const Conv2dProblem& problem, const T* x, cpu::PackedWeights& cache,
                              Key&& key, Weights&& weights, const T* bias, T* y, Precision precision) {
  detail::dispatch<T>(
      device,
      [&] {
        detail::with_cpu_factor<T>(precision, [&]<class Factor> {
          const std::uint64_t kept = cpu::conv2d_transposed_packed_bytes(problem) > 0 ? key() : 0;
          cpu::conv2d_transposed_cached<T, Factor>(problem, x, cache, kept, weights, bias, y);
        });
      },
      [&](auto& gpu) { gpu.conv2d_backward_input(problem, x, weights(), y, false, precision); });
}

template <class T>
void relu_forward(Device device, std::int64_t size, const T* x, T* y) {
  detail::dispatch<T>(device, [&] { cpu::relu_forward(size, x, y); }, [&](auto& gpu) { gpu.relu_forward(size, x, y); });
}
template <class T>
void relu_backward(Device device, std::int64_t size, const T* y, const T* dy, T* dx, bool accumulate) {
  detail::dispatch<T>(
      device, [&] { cpu::relu_backward(size, y, dy, dx, accumulate); },
      [&](auto& gpu) { gpu.relu_backward(size, y, dy, dx, accumulate); });
}
template <class T>
void leaky_relu_forward(Device device, std::int64_t size, const T* x, T* y, T slope) {
  detail::dispatch<T>(
      device, [&] { cpu::leaky_relu_forward(size, x, y, slope); },
      [&](auto& gpu) { gpu.leaky_relu_forward(size, x, y, slope); });
}
template <class T>
void leaky_relu_backward(Device device, std::int64_t size, const T* y, const T* dy, T* dx, T slope, bool accumulate) {
  detail::dispatch<T>(
      device, [&] { cpu::leaky_relu_backward(size, y, dy, dx, slope, accumulate); },
      [&](auto& gpu) { gpu.leaky_relu_backward(size, y, dy, dx, slope, accumulate); });
}
template <class T>
void prelu_forward(Device device, std::int64_t pixels, int channels, const T* x, const T* slope, int slopes, T* y) {
  detail::dispatch<T>(
      device, [&] { cpu::prelu_forward(pixels, channels, x, slope, slopes, y); },
      [&](auto& gpu) { gpu.prelu_forward(pixels, channels, x, slope, slopes, y); });
}

template <class T>
void avg_pool_forward(Device device, const PoolProblem& p, const T* x, T* y) {
  detail::dispatch<T>(
      device, [&] { cpu::avg_pool_forward(p, x, y); }, [&](auto& gpu) { gpu.avg_pool_forward(p, x, y); });
}
template <class T>
void global_avg_pool_forward(Device device, std::int64_t n, std::int64_t pixels, int channels, const T* x, T* y) {
  detail::dispatch<T>(
      device, [&] { cpu::global_avg_pool_forward(n, pixels, channels, x, y); },
      [&](auto& gpu) { gpu.global_avg_pool_forward(n, pixels, channels, x, y); });
}
template <class T>
void global_avg_pool_backward(Device device, std::int64_t n, std::int64_t pixels, int channels, const T* dy, T* dx,
                              bool accumulate) {
  detail::dispatch<T>(
      device, [&] { cpu::global_avg_pool_backward(n, pixels, channels, dy, dx, accumulate); },
      [&](auto& gpu) { gpu.global_avg_pool_backward(n, pixels, channels, dy, dx, accumulate); });
}
template <class T>
void pixel_shuffle(Device device, std::int64_t n, std::int64_t h, std::int64_t w, int channels, int r, const T* from,
                   T* to, bool inverse, bool accumulate) {
  detail::dispatch<T>(
      device, [&] { cpu::pixel_shuffle(n, h, w, channels, r, from, to, inverse, accumulate); },
      [&](auto& gpu) { gpu.pixel_shuffle(n, h, w, channels, r, from, to, inverse, accumulate); });
}

}  // namespace backend
}}  // namespace strata::STRATA_ABI
