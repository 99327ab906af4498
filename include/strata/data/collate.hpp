// How the samples of a batch become one tensor: images are stacked along N, numbers become a tensor of rank 1, vectors
// images of one pixel, tensors get one extent more, and each part of a tuple or a pair becomes a batch of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/data/sample.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

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

/// Vectors to images of one pixel with a channel for each number.
template <int C>
class Collate<Vector<C>> {
 public:
  using type = Image<C>;

  void add(const Vector<C>& vector, std::size_t position, std::size_t count, const char*) {
    if (position == 0) batch_ = type(std::int64_t(count), 1, 1);
    std::copy(vector.values.begin(), vector.values.end(), batch_.data() + std::int64_t(position) * C);
  }
  type take() { return std::move(batch_); }

 private:
  type batch_;
};

/// Tensors of up to three extents, as each pixel's class in (H, W), to one with N before them.
template <class T>
class Collate<Tensor<T>> {
 public:
  using type = Tensor<T>;

  /// Throws ShapeError when they differ.
  void add(const Tensor<T>& tensor, std::size_t position, std::size_t count, const char* role) {
    const Shape& s = tensor.shape();
    if (position == 0) {
      if (tensor.empty() || s.rank() > 3)
        throw ShapeError(
            concat("the ", role, " is a tensor of shape ", s.str(), "; wanted one to three extents, none of them 0"));
      const auto n = std::int64_t(count);
      shape_ = s;
      batch_ = type(s.rank() == 0   ? Shape{n}
                    : s.rank() == 1 ? Shape{n, s[0]}
                    : s.rank() == 2 ? Shape{n, s[0], s[1]}
                                    : Shape{n, s[0], s[1], s[2]});
    } else if (s != shape_) {
      throw ShapeError(concat("the ", role, " is of shape ", s.str(), ", the first of the batch of ", shape_.str()));
    }
    std::memcpy(batch_.data() + std::int64_t(position) * tensor.size(), tensor.data(),
                std::size_t(tensor.size()) * sizeof(T));
  }
  type take() { return std::move(batch_); }

 private:
  Shape shape_;
  type batch_;
};

namespace detail {
template <class T>
concept Collatable = requires { typename Collate<std::remove_cvref_t<T>>::type; };
}  // namespace detail

/// Several things in one place of a sample: each becomes a batch.
template <detail::Collatable... Ts>
class Collate<std::tuple<Ts...>> {
 public:
  using type = std::tuple<typename Collate<Ts>::type...>;

  void add(const std::tuple<Ts...>& parts, std::size_t position, std::size_t count, const char* role) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (std::get<I>(collates_).add(std::get<I>(parts), position, count, role), ...);
    }(std::index_sequence_for<Ts...>());
  }
  type take() {
    return std::apply([](auto&... collates) { return type(collates.take()...); }, collates_);
  }

 private:
  std::tuple<Collate<Ts>...> collates_;
};
template <detail::Collatable A, detail::Collatable B>
class Collate<Pair<A, B>> {
 public:
  using type = Pair<typename Collate<A>::type, typename Collate<B>::type>;

  void add(const Pair<A, B>& pair, std::size_t position, std::size_t count, const char* role) {
    input_.add(pair.input, position, count, role);
    target_.add(pair.target, position, count, role);
  }
  type take() {
    auto input = input_.take();
    return {std::move(input), target_.take()};
  }

 private:
  Collate<A> input_;
  Collate<B> target_;
};

}}  // namespace strata::STRATA_ABI
