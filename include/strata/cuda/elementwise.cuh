// Kernels that do the same to every element: one launch, every number read and written once, 16 bytes to an access.
//
//     const cudaError_t status = elementwise(stream, size, Fill{y, 0.0f});
//
// An operation is a struct with at<W>(i), which handles the W elements from i on (W is 1 or 4), and aligned(), which
// says whether its pointers allow W = 4; one that has only W = 1 derives from SingleElements.
#pragma once

#include <cstdint>
#include <type_traits>

#include "strata/cuda/numbers.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int elementwise_block = 256;

struct SingleElements {};
/// For one with loops of its own: its code stands in the kernel once, and not for each of a thread's elements.
struct LongElements {};

/// operation.at for every element below size. Grid: ceil(size / 1024).
template <class Operation, bool Vectors>
STRATA_GLOBAL void __launch_bounds__(elementwise_block) elementwise_kernel(std::int64_t size, Operation operation) {
  const std::int64_t block = std::int64_t(blockIdx.x) * (4 * elementwise_block);
  if constexpr (Vectors) {
    const std::int64_t first = block + 4 * std::int64_t(threadIdx.x);
    if (first + 4 <= size)
      operation.template at<4>(first);
    else
      for (std::int64_t i = first; i < size; ++i) operation.template at<1>(i);
  } else {
    [[maybe_unused]] constexpr int copies = std::is_base_of_v<LongElements, Operation> ? 1 : 4;
#pragma unroll copies
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = block + k * elementwise_block + std::int64_t(threadIdx.x);
      if (i < size) operation.template at<1>(i);
    }
  }
}

template <class Operation>
cudaError_t elementwise(cudaStream_t stream, std::int64_t size, const Operation& operation) {
  if (size <= 0) return cudaSuccess;
  const dim3 grid(unsigned(ceil_div(size, 4 * elementwise_block)));
  if constexpr (!std::is_base_of_v<SingleElements, Operation>)
    if (operation.aligned())
      return launch<&elementwise_kernel<Operation, true>>(grid, dim3(elementwise_block), 0, stream, size, operation);
  return launch<&elementwise_kernel<Operation, false>>(grid, dim3(elementwise_block), 0, stream, size, operation);
}

/// y = value.
struct Fill {
  float* y;
  float value;
  bool aligned() const { return aligned16(y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    Numbers<W> out;
#pragma unroll
    for (int k = 0; k < W; ++k) out.v[k] = value;
    store<W>(y + i, out);
  }
};

/// y = x where x is not below 0, else slope * x, or 0 where `zero` (0 * -infinity is NaN). NaN stays NaN. y may be x.
struct LeakyReluForward {
  const float* x;
  float* y;
  float slope;
  bool zero;
  bool aligned() const { return aligned16(x, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    Numbers<W> v = load<W>(x + i);
#pragma unroll
    for (int k = 0; k < W; ++k) v.v[k] = v.v[k] < 0.0f ? (zero ? 0.0f : slope * v.v[k]) : v.v[k];
    store<W>(y + i, v);
  }
};

/// dx (+)= dy where y > 0, else slope * dy, or 0 where `zero`. dx may be dy.
struct LeakyReluBackward {
  const float *y, *dy;
  float* dx;
  float slope;
  bool zero, accumulate;
  bool aligned() const { return aligned16(y, dy, dx); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const Numbers<W> v = load<W>(y + i);
    Numbers<W> g = load<W>(dy + i);
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] = v.v[k] > 0.0f ? g.v[k] : (zero ? 0.0f : slope * g.v[k]);
    store<W>(dx + i, g, accumulate);
  }
};

/// Where an element of N,H,W,C lies: fewer than 2^31 of them.
struct ElementPlace {
  Divisor by_channels, by_width, by_height;
  ElementPlace(std::int64_t channels, std::int64_t width, std::int64_t height)
      : by_channels(channels), by_width(width), by_height(height) {}
  struct Place {
    int n, i, j, c;
  };
  STRATA_DEVICE_MEMBER Place operator()(std::int64_t element) const {
    const std::uint32_t pixel = by_channels.quotient(std::uint32_t(element)), row = by_width.quotient(pixel);
    const std::uint32_t n = by_height.quotient(row);
    return {int(n), int(row - n * by_height.divisor), int(pixel - row * by_width.divisor),
            int(std::uint32_t(element) - pixel * by_channels.divisor)};
  }
};

/// The channel of an element of a tensor with `channels` innermost: for sizes below 2^31, or below 2^33 where channels
/// is a multiple of 4.
struct ChannelOf {
  Divisor channels, quads;
  bool whole_quads;

  explicit ChannelOf(int count) : channels(count), quads(count / 4 > 0 ? count / 4 : 1), whole_quads(count % 4 == 0) {}
  static constexpr bool fits(std::int64_t size, int count) {
    return size < (count % 4 == 0 ? std::int64_t{1} << 33 : std::int64_t{1} << 31);
  }
  template <int W>
  STRATA_DEVICE_MEMBER int at(std::int64_t i) const {
    if (W == 4 || whole_quads) return int(4 * quads.remainder(std::uint32_t(i / 4)) + std::uint32_t(i % 4));
    return int(channels.remainder(std::uint32_t(i)));
  }
};

/// The slopes of elements i to i + W - 1: one for all where `shared`, else their channels'.
template <int W>
STRATA_DEVICE Numbers<W> slopes_at(const float* slope, bool shared, const ChannelOf& channel, std::int64_t i) {
  if (!shared) return load<W>(slope + channel.at<W>(i));
  Numbers<W> same;
#pragma unroll
  for (int k = 0; k < W; ++k) same.v[k] = *slope;
  return same;
}

/// y = x above 0, slope[c] * x otherwise; one slope for all where `shared`.
struct PreluForward {
  const float *x, *slope;
  float* y;
  ChannelOf channel;
  bool shared;
  bool aligned() const { return channel.whole_quads && aligned16(x, slope, y); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    Numbers<W> v = load<W>(x + i);
    const Numbers<W> s = slopes_at<W>(slope, shared, channel, i);
#pragma unroll
    for (int k = 0; k < W; ++k) v.v[k] = v.v[k] > 0.0f ? v.v[k] : s.v[k] * v.v[k];
    store<W>(y + i, v);
  }
};

/// dx (+)= dy where x > 0, else slope[c] * dy.
struct PreluBackward {
  const float *x, *slope, *dy;
  float* dx;
  ChannelOf channel;
  bool shared, accumulate;
  bool aligned() const { return channel.whole_quads && aligned16(x, slope, dy, dx); }
  template <int W>
  STRATA_DEVICE_MEMBER void at(std::int64_t i) const {
    const Numbers<W> v = load<W>(x + i), s = slopes_at<W>(slope, shared, channel, i);
    Numbers<W> g = load<W>(dy + i);
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] = v.v[k] > 0.0f ? g.v[k] : s.v[k] * g.v[k];
    store<W>(dx + i, g, accumulate);
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
