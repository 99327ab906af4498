// Copies some channels of pixels between images with other numbers of channels.
//
//     st::cpu::copy_channels(pixels, 8, x + 16, 64, y, 8, false);      // y: channels 16 to 23 of x, which has 64
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cpu {

namespace detail {

template <bool Add, class T>
void copy_pixels(std::int64_t pixels, std::int64_t channels, const T* from, std::int64_t from_stride, T* to,
                 std::int64_t to_stride) {
  using V = simd::Vector<T>;
  constexpr std::int64_t lanes = simd::lanes<V>;
  if (!Add && from_stride == channels && to_stride == channels) {
    std::copy_n(from, pixels * channels, to);
    return;
  }
  const auto put = [&]<class W>(std::int64_t c, W) {
    const W value = simd::load<W>(from + c);
    simd::store<W>(to + c, Add ? simd::load<W>(to + c) + value : value);
  };
  for (std::int64_t i = 0; i < pixels; ++i, from += from_stride, to += to_stride) {
    std::int64_t c = 0;
    for (; c + lanes <= channels; c += lanes) put(c, V{});
    for (; c < channels; ++c) put(c, T{});
  }
}

}  // namespace detail

/// to[pixel * to_stride + c] = or += from[pixel * from_stride + c] for c < channels. A stride of 0 repeats one pixel.
template <class T>
void copy_channels(std::int64_t pixels, std::int64_t channels, const T* from, std::int64_t from_stride, T* to,
                   std::int64_t to_stride, bool add) {
  parallel_ranges(pixels, std::max<std::int64_t>(32768 / std::max<std::int64_t>(channels, 1), 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    const auto copy = add ? detail::copy_pixels<true, T> : detail::copy_pixels<false, T>;
                    copy(end - begin, channels, from + begin * from_stride, from_stride, to + begin * to_stride,
                         to_stride);
                  });
}

}}}  // namespace strata::STRATA_ABI::cpu
