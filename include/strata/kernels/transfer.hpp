// Numbers between the host and accelerators.
//
//     st::Image<1> there = noisy.to(st::Device::cuda());          // DeviceError, with the reason, where there is none
//     st::Image<1> back = there.to(st::Device::cpu());
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "strata/kernels/accelerator.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI {

/// The memory of a device. Throws DeviceError where there is no such device.
inline MemoryPool& pool_of(Device device) {
  return device.kind == DeviceKind::cpu ? cpu_pool() : accelerator(device).pool();
}

/// Copies bytes from one device's memory to another's, or inside one. Either may be the host.
inline void copy_bytes(void* to, Device to_device, const void* from, Device from_device, std::size_t bytes) {
  if (bytes == 0) return;
  const bool to_host = to_device.kind == DeviceKind::cpu, from_host = from_device.kind == DeviceKind::cpu;
  if (to_host && from_host) {
    std::memcpy(to, from, bytes);
  } else if (from_host) {
    accelerator(to_device).upload(to, from, bytes);
  } else if (to_host) {
    accelerator(from_device).download(to, from, bytes);
  } else if (to_device == from_device) {
    accelerator(to_device).copy(to, from, bytes);
  } else {  // by way of the host
    const Storage between = cpu_pool().take(bytes);
    accelerator(from_device).download(between.data(), from, bytes);
    accelerator(to_device).upload(to, between.data(), bytes);
  }
}

/// The numbers of `from` into `to`, whose size is the same and which may be on another device.
template <class T>
void copy_numbers(Tensor<T>& to, const Tensor<T>& from) {
  copy_bytes(to.data(), to.device(), from.data(), from.device(), std::size_t(from.size()) * sizeof(T));
}

/// A tensor of its own with the same numbers, on the same device.
template <class T>
Tensor<T> copy_of(const Tensor<T>& tensor) {
  if (tensor.device().kind == DeviceKind::cpu) return tensor.clone();
  Tensor<T> copy(tensor.shape(), tensor.pool());
  copy_numbers(copy, tensor);
  return copy;
}

/// Sets every number of a tensor, wherever it is.
template <class T>
void fill(Tensor<T>& tensor, T value) {
  if (tensor.device().kind == DeviceKind::cpu) return tensor.fill(value);
  if constexpr (std::is_same_v<T, float>) {
    accelerator(tensor.device()).fill(tensor.data(), tensor.size(), value);
  } else {
    Tensor<T> numbers(tensor.shape());
    numbers.fill(value);
    copy_numbers(tensor, numbers);
  }
}

template <class T>
Tensor<T> Tensor<T>::to(Device device) const {
  if (device == this->device()) return *this;
  Tensor there(shape_, pool_of(device));
  copy_numbers(there, *this);
  return there;
}

}}  // namespace strata::STRATA_ABI
