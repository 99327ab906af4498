// The numbers of a tensor without a name, as those of net(pass, x).value(). They live as long as this object, so that
//
//     for (float v : net(pass, x).value().span()) ...      // is safe, and so is
//     float first = net(pass, x).value().data()[0];
//
// while a pointer or a std::span that would outlive them is refused by the compiler.
#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>

#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class T>
class HeldNumbers {
 public:
  using value_type = std::remove_const_t<T>;

  /// Not a pointer: a std::span cannot be made of it.
  class iterator {
   public:
    using value_type = std::remove_const_t<T>;
    using difference_type = std::ptrdiff_t;
    using reference = T&;
    using pointer = T*;
    using iterator_category = std::random_access_iterator_tag;

    iterator() = default;
    explicit iterator(T* at) : at_(at) {}
    T& operator*() const { return *at_; }
    T& operator[](std::ptrdiff_t i) const { return at_[i]; }
    iterator& operator+=(std::ptrdiff_t by) { return at_ += by, *this; }
    iterator& operator-=(std::ptrdiff_t by) { return at_ -= by, *this; }
    iterator& operator++() { return *this += 1; }
    iterator& operator--() { return *this -= 1; }
    iterator operator++(int) { return iterator(at_++); }
    iterator operator--(int) { return iterator(at_--); }
    friend iterator operator+(iterator i, std::ptrdiff_t by) { return i += by; }
    friend iterator operator+(std::ptrdiff_t by, iterator i) { return i += by; }
    friend iterator operator-(iterator i, std::ptrdiff_t by) { return i -= by; }
    friend std::ptrdiff_t operator-(iterator a, iterator b) { return a.at_ - b.at_; }
    friend auto operator<=>(iterator, iterator) = default;

   private:
    T* at_ = nullptr;
  };

  HeldNumbers(Storage storage, T* data, std::size_t size) : storage_(std::move(storage)), data_(data), size_(size) {}

  iterator begin() const { return iterator(data_); }
  iterator end() const { return iterator(data_ + size_); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](std::integral auto i) const { return data_[i]; }
  T& operator*() const { return *data_; }

  /// There is none.
  template <class U>
  operator U*() const {
    static_assert(
        sizeof(U*) == 0,
        "strata: a pointer into the numbers of a temporary: give what holds them a name first, as in 'const auto y = "
        "net(pass, x); const float* numbers = y.data();'");
    return nullptr;
  }
  template <class U, std::size_t N>
  operator std::span<U, N>() const {
    static_assert(
        sizeof(U*) == 0,
        "strata: a span of the numbers of a temporary: give what holds them a name first, as in 'const auto y = "
        "net(pass, x); const auto numbers = y.value().span();'");
    return std::span<U, N>();
  }

 private:
  Storage storage_;
  T* data_;
  std::size_t size_;
};

}}  // namespace strata::STRATA_ABI
