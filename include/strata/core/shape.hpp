// The extents of a tensor, in PyTorch's order: (N, C, H, W) for images, (O, I, KH, KW) for convolution weights, (out,
// in) for linear weights, (C) for biases, () for a single number.
//
//     st::Shape shape{16, 64, 40, 40};
//     shape.size();   // 1638400
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

class Shape {
 public:
  static constexpr int max_rank = 4;

  constexpr Shape() = default;

  /// Throws ShapeError for more than four extents, a negative one, or a product that does not fit 63 bits.
  constexpr Shape(std::initializer_list<std::int64_t> extents) {
    if (extents.size() > std::size_t(max_rank)) throw ShapeError("Shape: at most 4 extents");
    for (const std::int64_t extent : extents) push_back(extent);
  }

  constexpr void push_back(std::int64_t extent) {
    if (rank_ == max_rank) throw ShapeError("Shape: at most 4 extents");
    if (extent < 0) throw ShapeError(concat("Shape: extent ", rank_, " is ", extent, "; extents are not negative"));
    if (extent != 0 && size_ > std::numeric_limits<std::int64_t>::max() / extent)
      throw ShapeError("Shape: the number of elements does not fit 63 bits");
    size_ *= extent;
    extents_[std::size_t(rank_++)] = extent;
  }

  constexpr int rank() const { return rank_; }
  constexpr std::int64_t operator[](int axis) const { return extents_[std::size_t(axis)]; }
  /// Number of elements; 1 for rank 0.
  constexpr std::int64_t size() const { return size_; }

  // Names for a batch of images. Axes that are not there count as 1.
  constexpr std::int64_t n() const { return at_or_one(0); }
  constexpr std::int64_t c() const { return at_or_one(1); }
  constexpr std::int64_t h() const { return at_or_one(2); }
  constexpr std::int64_t w() const { return at_or_one(3); }

  friend constexpr bool operator==(const Shape&, const Shape&) = default;

  /// "16x64x40x40"; "scalar" for rank 0.
  std::string str() const {
    if (rank_ == 0) return "scalar";
    std::string text;
    for (int axis = 0; axis < rank_; ++axis) {
      if (axis > 0) text += 'x';
      text += std::to_string((*this)[axis]);
    }
    return text;
  }

 private:
  constexpr std::int64_t at_or_one(int axis) const { return axis < rank_ ? (*this)[axis] : 1; }

  std::array<std::int64_t, max_rank> extents_{};
  std::int64_t size_ = 1;
  int rank_ = 0;
};

}}  // namespace strata::STRATA_ABI
