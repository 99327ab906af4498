// How the samples of a batch become one tensor: images are stacked along N, numbers become a tensor of rank 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

/// Collate<T>::type is what a batch of T is; the class takes the T of one sample after another. To batch a type of your
/// own, specialise it with the same members.
template <class T>
class Collate;

template <int C, class T>
class Collate<Image<C, T>> {
 public:
  using type = Image<C, T>;

  /// Samples may hold several images each, all the same number and size. Throws ShapeError when they differ.
  void add(const Image<C, T>& image, std::size_t position, std::size_t count, const char* role) {
    if (position == 0) {
      if (image.empty()) throw ShapeError(concat("the ", role, " is an empty image ", image.shape().str()));
      shape_ = image.shape();
      batch_ = type(image.n() * std::int64_t(count), image.h(), image.w());
    } else if (image.shape() != shape_) {
      throw ShapeError(concat("the ", role, " is ", image.shape().str(), ", the first of the batch is ", shape_.str(),
                              "; crop the samples to one size, or use .batch_size = 1"));
    }
    std::memcpy(batch_.data() + std::int64_t(position) * image.size(), image.data(),
                std::size_t(image.size()) * sizeof(T));
  }
  type take() { return std::move(batch_); }

 private:
  Shape shape_;
  type batch_;
};

/// Numbers: integers (labels) to int64, floating point to float.
template <class T>
  requires std::is_arithmetic_v<T>
class Collate<T> {
 public:
  using value_type = std::conditional_t<std::is_integral_v<T>, std::int64_t, float>;
  using type = Tensor<value_type>;

  void add(T value, std::size_t position, std::size_t count, const char*) {
    if (position == 0) batch_ = type(Shape{std::int64_t(count)});
    batch_.data()[position] = value_type(value);
  }
  type take() { return std::move(batch_); }

 private:
  type batch_;
};

namespace detail {
template <class T>
concept Collatable = requires { typename Collate<std::remove_cvref_t<T>>::type; };
}  // namespace detail

}  // namespace strata::inline STRATA_ABI
