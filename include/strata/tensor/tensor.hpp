// A block of numbers with a shape. Like PyTorch's, a Tensor is a handle: a copy shares the numbers, clone() copies
// them.
//
//     st::Tensor<> weight(st::Shape{64, 1, 3, 3});     // uninitialised
//     weight.fill(0);
//
// In memory a tensor of four extents is channels-last: shape (N, C, H, W) lies as N, H, W, C, and a convolution weight
// (O, I, KH, KW) as O, KH, KW, I. All others are row-major. to_nchw / from_nchw convert at file borders.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "strata/core/shape.hpp"
#include "strata/tensor/held_numbers.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {
[[noreturn]] inline void throw_not_on_host(const char* what, Device device) {
  throw DeviceError(concat(what, ": the numbers are on ", device.str(),
                           "; bring them to the host first, with x.to(st::Device::cpu())"));
}
}  // namespace detail

template <class T = float>
class Tensor {
 public:
  using value_type = T;

  /// Shape (0), no memory.
  Tensor() : shape_{0} {}

  /// Uninitialised host memory for `shape`.
  explicit Tensor(const Shape& shape) : Tensor(shape, cpu_pool()) {}

  /// Uninitialised memory of `pool`'s device for `shape`.
  Tensor(const Shape& shape, MemoryPool& pool)
      : shape_(shape), storage_(pool.take(bytes(shape))) {}

  static Tensor full(const Shape& shape, T value) {
    Tensor tensor(shape);
    tensor.fill(value);
    return tensor;
  }
  static Tensor zeros(const Shape& shape) { return full(shape, T(0)); }

  const Shape& shape() const& { return shape_; }
  Shape shape() const&& { return shape_; }
  std::int64_t size() const { return shape_.size(); }
  bool empty() const { return shape_.size() == 0; }
  Device device() const { return storage_.device(); }
  /// Where its memory is from: the pool for results that belong beside it.
  MemoryPool& pool() const { return storage_.pool(); }
  /// The same numbers on another device: this handle where they are there already, else a copy. Throws DeviceError
  /// where there is no such device. (kernels/transfer.hpp)
  Tensor to(Device device) const;
  /// Throws DeviceError unless the numbers are in the host's memory. `what` names the operation that reads or writes
  /// them.
  void require_host(const char* what) const {
    if (device().kind != DeviceKind::cpu) detail::throw_not_on_host(what, device());
  }

  /// The numbers, in memory of device(): those of an accelerator are not for the host to read. A tensor that is not
  /// const gives them to write: where a training pass has read them, backward() then looks whether they are what they
  /// were.
  T* data() & { return static_cast<T*>(storage_.data_to_write()); }
  const T* data() const& { return static_cast<const T*>(storage_.data()); }
  std::span<T> span() & { return {data(), std::size_t(size())}; }
  std::span<const T> span() const& { return {data(), std::size_t(size())}; }
  /// Those of a temporary, which live on in what is given: no pointer (tensor/held_numbers.hpp).
  HeldNumbers<T> data() && { return {storage_, data(), std::size_t(size())}; }
  HeldNumbers<const T> data() const&& { return {storage_, data(), std::size_t(size())}; }
  HeldNumbers<T> span() && { return {storage_, data(), std::size_t(size())}; }
  HeldNumbers<const T> span() const&& { return {storage_, data(), std::size_t(size())}; }

  /// The block of memory they lie in.
  const Storage& storage() const& { return storage_; }
  Storage storage() const&& { return storage_; }

  void fill(T value) {
    require_host("Tensor::fill");
    std::fill_n(data(), size(), value);
  }

  Tensor clone() const {
    require_host("Tensor::clone");
    Tensor copy(shape_);
    if (!empty()) std::memcpy(copy.data(), data(), std::size_t(size()) * sizeof(T));
    return copy;
  }

  /// The same numbers in the same memory order under another shape of equal size. Throws ShapeError otherwise.
  Tensor reshaped(const Shape& shape) const {
    if (shape.size() != size())
      throw ShapeError(concat("Tensor::reshaped: ", shape_.str(), " has ", size(), " elements, ", shape.str(), " has ",
                              shape.size()));
    Tensor view = *this;
    view.shape_ = shape;
    return view;
  }

 private:
  static std::size_t bytes(const Shape& shape) {
    if (shape.size() > std::numeric_limits<std::int64_t>::max() / std::int64_t(sizeof(T)))
      throw ShapeError(concat("Tensor: ", shape.str(), " is more memory than a computer can address"));
    return std::size_t(shape.size()) * sizeof(T);
  }

  Shape shape_;
  Storage storage_;
};

/// The numbers of a tensor in PyTorch's memory order (NCHW, OIHW; row-major for other ranks).
template <class T>
std::vector<T> to_nchw(const Tensor<T>& tensor) {
  tensor.require_host("to_nchw");
  const Shape& s = tensor.shape();
  std::vector<T> out(std::size_t(s.size()));
  if (s.rank() != 4) {
    std::copy_n(tensor.data(), s.size(), out.begin());
    return out;
  }
  const T* from = tensor.data();
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t pixel = 0; pixel < s[2] * s[3]; ++pixel)
      for (std::int64_t c = 0; c < s[1]; ++c) out[std::size_t((n * s[1] + c) * s[2] * s[3] + pixel)] = *from++;
  return out;
}

/// Fills a tensor from numbers in PyTorch's memory order. values.size() must equal tensor.size().
template <class T>
void from_nchw(Tensor<T>& tensor, std::span<const T> values) {
  tensor.require_host("from_nchw");
  const Shape& s = tensor.shape();
  if (std::int64_t(values.size()) != s.size())
    throw ShapeError(concat("from_nchw: ", values.size(), " values for a tensor of ", s.str()));
  if (s.rank() != 4) {
    std::copy_n(values.data(), s.size(), tensor.data());
    return;
  }
  T* to = tensor.data();
  for (std::int64_t n = 0; n < s[0]; ++n)
    for (std::int64_t pixel = 0; pixel < s[2] * s[3]; ++pixel)
      for (std::int64_t c = 0; c < s[1]; ++c) *to++ = values[std::size_t((n * s[1] + c) * s[2] * s[3] + pixel)];
}

}}  // namespace strata::STRATA_ABI
