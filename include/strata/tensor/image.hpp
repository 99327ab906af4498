// A batch of images whose number of channels is part of the type, so that the compiler can check it.
//
//     st::Image<3> photo(1, 480, 640);            // one RGB image, uninitialised
//     photo(0, 2, 10, 20) = 0.5f;                 // image 0, channel 2, row 10, column 20
//
// Values are floats, by custom in [0, 1]. Memory is N, H, W, C. Like a Tensor, an Image is a handle: clone() copies.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI {

template <int C, class T = float>
class Image {
  static_assert(C > 0, "strata::Image<C>: the number of channels C must be positive");

 public:
  static constexpr int channels = C;
  using value_type = T;

  /// No images.
  Image() : tensor_(Shape{0, C, 0, 0}) {}

  /// n images of h rows and w columns, uninitialised.
  Image(std::int64_t n, std::int64_t h, std::int64_t w) : tensor_(Shape{n, C, h, w}) {}
  /// The same in the memory of `pool`'s device.
  Image(std::int64_t n, std::int64_t h, std::int64_t w, MemoryPool& pool) : tensor_(Shape{n, C, h, w}, pool) {}

  /// Takes a tensor of shape (N, C, H, W). Throws ShapeError for another rank or channel count.
  explicit Image(Tensor<T> tensor) : tensor_(std::move(tensor)) {
    if (tensor_.shape().rank() != 4 || tensor_.shape().c() != C)
      throw ShapeError(concat("Image<", C, ">: got a tensor of shape ", tensor_.shape().str(), ", wanted (N, ", C,
                              ", H, W)"));
  }

  static Image full(std::int64_t n, std::int64_t h, std::int64_t w, T value) {
    Image image(n, h, w);
    image.tensor_.fill(value);
    return image;
  }

  std::int64_t n() const { return shape().n(); }
  std::int64_t h() const { return shape().h(); }
  std::int64_t w() const { return shape().w(); }
  const Shape& shape() const& { return tensor_.shape(); }
  Shape shape() const&& { return tensor_.shape(); }
  std::int64_t size() const { return tensor_.size(); }
  bool empty() const { return tensor_.empty(); }
  Device device() const { return tensor_.device(); }
  MemoryPool& pool() const { return tensor_.pool(); }
  /// The same images on another device: this handle where they are there already, else a copy. (kernels/transfer.hpp)
  Image to(Device device) const { return Image(tensor_.to(device)); }

  T* data() & { return tensor_.data(); }
  const T* data() const& { return tensor_.data(); }
  std::span<T> span() & { return tensor_.span(); }
  std::span<const T> span() const& { return tensor_.span(); }
  Tensor<T>& tensor() & { return tensor_; }
  const Tensor<T>& tensor() const& { return tensor_; }
  /// Of a temporary: what is given keeps the numbers (tensor/held_numbers.hpp).
  HeldNumbers<T> data() && { return std::move(tensor_).data(); }
  HeldNumbers<const T> data() const&& { return std::move(tensor_).data(); }
  HeldNumbers<T> span() && { return std::move(tensor_).span(); }
  HeldNumbers<const T> span() const&& { return std::move(tensor_).span(); }
  Tensor<T> tensor() && { return std::move(tensor_); }
  Tensor<T> tensor() const&& { return tensor_; }

  T& operator()(std::int64_t n, int c, std::int64_t y, std::int64_t x) & { return data()[offset(n, c, y, x)]; }
  const T& operator()(std::int64_t n, int c, std::int64_t y, std::int64_t x) const& {
    return data()[offset(n, c, y, x)];
  }
  T operator()(std::int64_t n, int c, std::int64_t y, std::int64_t x) const&& { return data()[offset(n, c, y, x)]; }

  Image clone() const { return Image(tensor_.clone()); }

 private:
  std::int64_t offset(std::int64_t n, int c, std::int64_t y, std::int64_t x) const {
    return ((n * h() + y) * w() + x) * C + c;
  }

  Tensor<T> tensor_;
};

/// Values below low become low, above high become high. Throws ValueError for low > high. (Of a value in a pass:
/// autograd/expression.hpp.)
template <int C, class T>
Image<C, T> clamp(const Image<C, T>& image, double low = 0, double high = 1) {
  if (!(low <= high)) throw ValueError(concat("clamp: low ", low, " must not be above high ", high));
  image.tensor().require_host("clamp");
  Image<C, T> out(image.n(), image.h(), image.w());
  std::transform(image.data(), image.data() + image.size(), out.data(),
                 [&](T value) { return std::clamp(value, static_cast<T>(low), static_cast<T>(high)); });
  return out;
}

/// The class a labelled image belongs to, counted from 0.
using Label = std::int64_t;

}}  // namespace strata::STRATA_ABI
