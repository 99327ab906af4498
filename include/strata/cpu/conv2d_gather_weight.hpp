// The gradients for the weights and the bias of a convolution of many channels to many, by a matrix product
//
//     dweight[o][tap, c] = sum over pixels of dy[pixel][o] * x[pixel under the tap][c]
//
// Some hundred pixels of any images make a chunk, whose patches of x are copied together, zeros where a tap lies in the
// padding; dy is read in place. A task keeps the sums of some columns in the second-level cache over a range of pixels. Columns
// are cut first, so that the sums of large filters need not be added up over ranges, and ranges where columns are few.
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d_taps.hpp"
#include "strata/cpu/panel_product.hpp"
#include "strata/cpu/worker_scratch.hpp"
#include "strata/math/conv2d_problem.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

/// How the work is cut, by the problem alone.
template <class T>
struct GatherWeightPlan {
  using V = simd::Vector<T>;
  static constexpr std::int64_t lanes = simd::lanes<V>, panel_width = panel_vectors * lanes;
  static constexpr std::int64_t chunk = 128;                                                 ///< pixels
  static constexpr std::int64_t sums_bytes = simd::register_bytes * (4 << 10);               ///< of a task, about

  explicit GatherWeightPlan(const Conv2dProblem& p)
      : pixels(p.n * p.out_h() * p.out_w()),
        out(p.out),
        columns(p.taps() * p.in),
        panels((columns + panel_width - 1) / panel_width),
        group(std::clamp<std::int64_t>(sums_bytes / (out * panel_width * std::int64_t(sizeof(T))), 1, 4)),
        groups((panels + group - 1) / group),
        ranges(std::clamp<std::int64_t>((16 + groups - 1) / groups, 1, (pixels + 2 * chunk - 1) / (2 * chunk))) {}

  /// Columns of the panels of a group, in whole vectors.
  std::int64_t width(std::int64_t g) const {
    return std::min(simd::padded<V>(columns), (g + 1) * group * panel_width) - g * group * panel_width;
  }
  /// Where the sums of a range and group lie: panel by panel, row by row.
  std::int64_t place(std::int64_t range, std::int64_t g) const {
    return (range * simd::padded<V>(columns) + g * group * panel_width) * out;
  }
  /// In numbers: sums of all ranges, where there are several, and what each worker has.
  std::int64_t sums_size() const { return ranges > 1 ? place(ranges, 0) : 0; }
  std::int64_t workspace_size() const { return group * panel_width * (out + chunk); }

  std::int64_t pixels, out, columns, panels, group, groups, ranges;
};

/// Copies the patches of pixels to panels: to[panel][pixel][column], for columns [first, end) of all taps' channels.
template <class T>
class PatchCopier {
  using V = simd::Vector<T>;

 public:
  PatchCopier(const Conv2dProblem& p, const T* x) : p_(p), x_(x), out_h_(p.out_h()), out_w_(p.out_w()) {}

  void operator()(std::int64_t first_pixel, std::int64_t pixels, std::int64_t first, std::int64_t width, T* to) const {
    constexpr std::int64_t panel_width = GatherWeightPlan<T>::panel_width;
    const std::int64_t columns = p_.taps() * p_.in;
    for (std::int64_t panel = 0; panel < width; panel += panel_width) {
      const std::int64_t wide = std::min(panel_width, width - panel), begin = first + panel;
      const std::int64_t end = std::min(begin + wide, columns);
      for (std::int64_t k = begin; k < end;) {  // a piece of one tap at a time
        const std::int64_t tap = k / p_.in, channel = k % p_.in, length = std::min(end - k, p_.in - channel);
        copy(first_pixel, pixels, tap, channel, length, to + (k - begin), wide);
        k += length;
      }
      for (std::int64_t q = 0; q < pixels && end < begin + wide; ++q)
        std::fill(to + q * wide + (end - begin), to + (q + 1) * wide, T(0));
      to += wide * pixels;
    }
  }

 private:
  void copy(std::int64_t first, std::int64_t pixels, std::int64_t tap, std::int64_t channel, std::int64_t length, T* to,
            std::int64_t pitch) const {
    const std::int64_t wide = p_.kernel_columns();
    const std::int64_t dh = tap / wide * p_.dilation - p_.padding, dw = tap % wide * p_.dilation - p_.padding_columns();
    std::int64_t j = first % out_w_, i = first / out_w_ % out_h_, n = first / out_w_ / out_h_;
    for (std::int64_t q = 0; q < pixels; ++q, to += pitch) {
      const std::int64_t h = i * p_.stride + dh, w = j * p_.stride + dw;
      if (h >= 0 && h < p_.h && w >= 0 && w < p_.w) {
        const T* const from = x_ + ((n * p_.h + h) * p_.w + w) * p_.in + channel;
        simd::over_vectors<T>(length, [&]<class W>(std::int64_t c) { simd::store<W>(to + c, simd::load<W>(from + c)); });
      } else {
        simd::over_vectors<T>(length, [&]<class W>(std::int64_t c) { simd::store<W>(to + c, W{}); });
      }
      if (++j == out_w_) j = 0, ++i == out_h_ ? i = 0, ++n : n;
    }
  }

  Conv2dProblem p_;
  const T* x_;
  std::int64_t out_h_, out_w_;
};

/// dweight[o][first + j] = or += the sum over ranges of sums[range][panel][o][j], for the `width` columns of a group and rows
/// [o, end). The ranges lie `distance` apart.
template <class T>
[[gnu::noinline]] void add_panel_sums(const GatherWeightPlan<T>& plan, const T* sums, std::int64_t ranges, std::int64_t distance, std::int64_t g,
                    std::int64_t o, std::int64_t end, T* dweight, bool accumulate) {
  const std::int64_t first = g * plan.group * plan.panel_width, width = plan.width(g);
  for (std::int64_t panel = 0; panel < width; panel += plan.panel_width) {
    const std::int64_t wide = std::min(plan.panel_width, width - panel), count = std::min(wide, plan.columns - first - panel);
    for (std::int64_t row = o; row < end; ++row) {
      const T* const from = sums + panel * plan.out + row * wide;
      T* const to = dweight + row * plan.columns + first + panel;
      simd::over_vectors<T>(count, [&]<class W>(std::int64_t c) {
        W sum = simd::load<W>(from + c);
        for (std::int64_t range = 1; range < ranges; ++range) sum += simd::load<W>(from + range * distance + c);
        simd::store<W>(to + c, accumulate ? simd::load<W>(to + c) + sum : sum);
      });
    }
  }
}

/// dweight and dbias (unless nullptr) = or += their gradients.
template <class T>
void gather_backward_weight(const Conv2dProblem& p, const T* x, const T* dy, T* dweight, T* dbias, bool accumulate) {
  using V = simd::Vector<T>;
  using Plan = GatherWeightPlan<T>;
  const Plan plan(p);
  const PatchCopier<T> copy_patches(p, x);
  WorkerScratch<T> workspace(plan.workspace_size());
  Scratch<T> all_sums(std::size_t(plan.sums_size())), bias_sums(std::size_t(plan.ranges * plan.out));
  parallel_for(plan.ranges * plan.groups, [&](std::int64_t task, int worker) {
    const std::int64_t range = task / plan.groups, g = task % plan.groups, width = plan.width(g);
    T* const patches = workspace[worker];
    T* const sums = plan.ranges > 1 ? all_sums.data() + plan.place(range, g) : patches + plan.group * plan.panel_width * plan.chunk;
    T* const bias = g == 0 && dbias != nullptr ? bias_sums.data() + range * plan.out : nullptr;
    if (bias != nullptr) std::fill_n(bias, plan.out, T(0));
    const std::int64_t begin = plan.pixels * range / plan.ranges, end = plan.pixels * (range + 1) / plan.ranges;
    for (std::int64_t first = begin; first < end; first += Plan::chunk) {
      const std::int64_t count = std::min(Plan::chunk, end - first);
      const T* const rows = dy + first * plan.out;
      copy_patches(first, count, g * plan.group * Plan::panel_width, width, patches);
      for (std::int64_t panel = 0; panel < width; panel += Plan::panel_width) {
        const std::int64_t wide = std::min(Plan::panel_width, width - panel);
        add_outer_products<V>(count, plan.out, wide, rows, plan.out, patches + panel * count, wide, sums + panel * plan.out, wide,
                              first > begin);
      }
      for (std::int64_t q = 0; q < count && bias != nullptr; ++q)
        simd::over_vectors<T>(plan.out, [&]<class W>(std::int64_t o) {
          simd::store<W>(bias + o, simd::load<W>(bias + o) + simd::load<W>(rows + q * plan.out + o));
        });
    }
    if (plan.ranges == 1) add_panel_sums(plan, sums, 1, 0, g, 0, plan.out, dweight, accumulate);
  });
  constexpr std::int64_t some = 16;
  const std::int64_t parts = (plan.out + some - 1) / some;
  if (plan.ranges > 1)
    parallel_for(plan.groups * parts, [&](std::int64_t task) {
      const std::int64_t g = task / parts, o = task % parts * some;
      add_panel_sums(plan, all_sums.data() + plan.place(0, g), plan.ranges, plan.place(1, 0), g, o, std::min(plan.out, o + some),
                     dweight, accumulate);
    });
  for (std::int64_t o = 0; o < plan.out && dbias != nullptr; ++o) {
    T sum = bias_sums.data()[o];
    for (std::int64_t range = 1; range < plan.ranges; ++range) sum += bias_sums.data()[range * plan.out + o];
    dbias[o] = accumulate ? dbias[o] + sum : sum;
  }
}

}  // namespace detail

}  // namespace strata::inline STRATA_ABI::cpu
