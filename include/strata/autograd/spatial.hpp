// Rows and columns around an image, parts of it, and one number of many pixels or channels.
//
//     auto y = st::pad(pass, x, {.left = 1, .right = 1, .top = 2, .bottom = 2}, st::PaddingMode::reflect);
//     auto part = st::crop(pass, x, top, left, height, width);
//     auto both = st::cat(pass, st::crop_like(pass, skip, y), y);    // skip's upper left part, as large as y
//     auto level = st::mean_over_pixels(pass, x);                    // an image of one pixel
//     auto map = st::max_over_channels(pass, x);                     // Var<1>
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/operators.hpp"
#include "strata/cpu/pad.hpp"
#include "strata/cpu/pooling.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// How pad and crop run. Self has fits(h, w), problem(shape) and problem_text(h, w), for what does not fit.
template <class Self>
struct MarginsOperator {
  static constexpr bool keeps_input = false, keeps_output = false;

  Shape result(const Shape& x) const {
    if (!self().fits(x.h(), x.w())) throw ShapeError(self().problem_text(x.h(), x.w()));
    return {x.n(), x.c(), problem(x).out_h(), problem(x).out_w()};
  }
  template <class T>
  void forward(const Shape& from, const T* x, T* y) const {
    cpu::pad_forward(problem(from), x, y);
  }
  template <class T>
  void backward(const Shape& from, const T*, const T*, const T* dy, T* dx, bool accumulate) const {
    cpu::pad_backward(problem(from), dy, dx, accumulate);
  }
  void forward_on(Accelerator& gpu, const Shape& from, const float* x, float* y) const {
    gpu.pad_forward(problem(from), x, y);
  }
  void backward_on(Accelerator& gpu, const Shape& from, const float* dy, float* dx, bool accumulate) const {
    gpu.pad_backward(problem(from), dy, dx, accumulate);
  }

 private:
  constexpr const Self& self() const { return static_cast<const Self&>(*this); }
  PadProblem problem(const Shape& x) const { return self().problem(x); }
};

struct PadOperator : MarginsOperator<PadOperator> {
  Margins margins;
  PaddingMode mode = PaddingMode::zeros;

  constexpr PadOperator(const Margins& around, PaddingMode how) : margins(around), mode(how) {}
  static std::string name() { return "pad"; }

  PadProblem problem(const Shape& x) const {
    return {.n = x.n(), .h = x.h(), .w = x.w(), .channels = int(x.c()), .margins = margins, .mode = mode};
  }
  /// What a border may be at most.
  constexpr bool fits(std::int64_t h, std::int64_t w) const {
    const std::int64_t most_h = std::max(margins.top, margins.bottom), most_w = std::max(margins.left, margins.right);
    if (h + margins.top + margins.bottom < 1 || w + margins.left + margins.right < 1 || h < 1 || w < 1) return false;
    if (margins.top < -h || margins.bottom < -h || margins.left < -w || margins.right < -w) return false;
    if (mode == PaddingMode::circular) return most_h <= h && most_w <= w;
    return mode != PaddingMode::reflect || (most_h < h && most_w < w);
  }
  std::string problem_text(std::int64_t h, std::int64_t w) const {
    return concat("pad: an image of ", h, " x ", w, " pixels and margins of ", margins.left, " on the left, ",
                  margins.right, " on the right, ", margins.top, " above and ", margins.bottom, " below",
                  mode == PaddingMode::reflect    ? ": reflected ones must be smaller than the image"
                  : mode == PaddingMode::circular ? ": circular ones must not be larger than the image"
                                                  : ": no pixels are left");
  }
  constexpr void trace(auto& t) const {
    const auto x = t.extents();
    if (!fits(x.h, x.w)) t.fails([&] { return problem_text(x.h, x.w); });
    if (mode == PaddingMode::circular) t.looks_at_whole_image();
    t.shifted(x.h + margins.top + margins.bottom, x.w + margins.left + margins.right, margins.top, margins.left,
              mode == PaddingMode::zeros
                  ? std::max<std::int64_t>({0, -margins.bottom, -margins.right})
                  : 2 * std::max({margins.top, margins.bottom, margins.left, margins.right, std::int64_t{0}}) +
                        std::max<std::int64_t>({0, -margins.bottom, -margins.right}));
  }
  template <int Out>
  auto onnx(const auto& x) const {
    if (mode == PaddingMode::circular)
      throw ValueError(
          "pad: circular margins cannot be exported, since ONNX has them from opset 19 on: have the convolution behind "
          "pad, by its padding_mode");
    const std::vector<std::int64_t> pads{0, 0, margins.top, margins.left, 0, 0, margins.bottom, margins.right};
    return x.template node_of_other_size<Out>("Pad", {x.constant({8}, pads)},
                                              {{"mode", std::string(mode == PaddingMode::zeros     ? "constant"
                                                                    : mode == PaddingMode::reflect ? "reflect"
                                                                                                   : "edge")}});
  }
};

struct CropOperator : MarginsOperator<CropOperator> {
  std::int64_t top, left, height, width;

  constexpr CropOperator(std::int64_t first_row, std::int64_t first_column, std::int64_t rows, std::int64_t columns)
      : top(first_row), left(first_column), height(rows), width(columns) {}
  static std::string name() { return "crop"; }

  constexpr bool fits(std::int64_t h, std::int64_t w) const {
    return top >= 0 && left >= 0 && height > 0 && width > 0 && top + height <= h && left + width <= w;
  }
  std::string problem_text(std::int64_t h, std::int64_t w) const {
    return concat("crop: an image of ", h, " x ", w, " pixels has no ", height, " x ", width, " pixels from row ", top,
                  " and column ", left, " on");
  }
  PadProblem problem(const Shape& x) const {
    return {.n = x.n(),
            .h = x.h(),
            .w = x.w(),
            .channels = int(x.c()),
            .margins = {.left = -left, .right = left + width - x.w(), .top = -top, .bottom = top + height - x.h()}};
  }
  constexpr void trace(auto& t) const {
    if (!fits(t.extents().h, t.extents().w)) t.fails([&] { return problem_text(t.extents().h, t.extents().w); });
    t.shifted(height, width, -top, -left);
  }
  template <int Out>
  auto onnx(const auto& x) const {
    const auto pair = [&](std::int64_t a, std::int64_t b) { return x.constant({2}, std::vector<std::int64_t>{a, b}); };
    return x.template node_of_other_size<Out>("Slice", {pair(top, left), pair(top + height, left + width), pair(2, 3)});
  }
};

/// The symbols' crop_like.
struct CropLikeOperator {
  static std::string name() { return "crop_like"; }
  static constexpr bool keeps_input = false, keeps_output = false;
  constexpr void trace(auto& t, const auto& like) const {
    if (t.extents().h < like.h || t.extents().w < like.w)
      t.fails([&] {
        return concat("crop_like: an image of ", t.extents().h, " x ", t.extents().w, " pixels is no larger than ",
                      like.h, " x ", like.w);
      });
    t.shifted(like.h, like.w, 0, 0);
  }
  auto run(auto& pass, const auto& x, const auto& like) const { return crop(pass, x, 0, 0, like.h(), like.w()); }
  template <int Out>
  auto onnx(const auto& x, const auto& like) const {
    const auto pair = [&](std::int64_t a, std::int64_t b) { return x.constant({2}, std::vector<std::int64_t>{a, b}); };
    const std::string extents =
        x.operation("Slice", {x.operation("Shape", {like.symbol().name}), x.constant({1}, std::vector<std::int64_t>{2}),
                              x.constant({1}, std::vector<std::int64_t>{4})});
    return x.template node_of_other_size<Out>("Slice", {pair(0, 0), extents, pair(2, 3)});
  }
};

enum class Reduced { sum, mean, max };
constexpr const char* reduced_text(Reduced how) {
  return how == Reduced::sum ? "Sum" : how == Reduced::mean ? "Mean" : "Max";
}
/// The ONNX node over these axes: sums take them as an input, the others as an attribute.
template <int Out, Reduced How>
auto onnx_reduced(const auto& x, const std::vector<std::int64_t>& axes) {
  if constexpr (How == Reduced::sum)
    return x.template node_of_other_size<Out>("ReduceSum", {x.constant({std::int64_t(axes.size())}, axes)});
  else
    return x.template node_of_other_size<Out>(How == Reduced::mean ? "ReduceMean" : "ReduceMax", {}, {{"axes", axes}});
}

/// Over all pixels of an image, for each channel.
template <Reduced How>
struct OverPixels {
  static std::string name() {
    return How == Reduced::sum ? "sum_over_pixels" : How == Reduced::mean ? "mean_over_pixels" : "max_over_pixels";
  }
  static constexpr bool keeps_input = How == Reduced::max, keeps_output = How == Reduced::max;

  static Shape result(const Shape& x) {
    if (x.h() * x.w() == 0) throw ShapeError(concat(name(), ": the image has no pixels"));
    return {x.n(), x.c(), 1, 1};
  }
  /// f(image, first channel, end) for blocks of channels, on all threads.
  template <class F>
  static void over_channels(const Shape& x, F&& f) {
    constexpr std::int64_t block = 64;
    const std::int64_t blocks = (x.c() + block - 1) / block;
    parallel_for(x.n() * blocks, [&](std::int64_t task) {
      f(task / blocks, task % blocks * block, std::min(x.c(), (task % blocks + 1) * block));
    });
  }
  template <class T>
  static void forward(const Shape& s, const T* x, T* y) {
    const std::int64_t pixels = s.h() * s.w(), c = s.c();
    if constexpr (How != Reduced::max) {
      cpu::global_avg_pool_forward(s.n(), pixels, int(c), x, y);
      if constexpr (How == Reduced::sum)
        for (std::int64_t i = 0; i < s.n() * c; ++i) y[i] *= T(pixels);
    } else {
      over_channels(s, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
        const T* const image = x + n * pixels * c;
        std::copy(image + begin, image + end, y + n * c + begin);
        for (std::int64_t p = 1; p < pixels; ++p)
          for (std::int64_t k = begin; k < end; ++k) {
            const T value = image[p * c + k];
            T& best = y[n * c + k];
            best = value > best || value != value ? value : best;
          }
      });
    }
  }
  template <class T>
  static void backward(const Shape& s, const T* x, const T* y, const T* dy, T* dx, bool accumulate) {
    const std::int64_t pixels = s.h() * s.w(), c = s.c();
    over_channels(s, [&](std::int64_t n, std::int64_t begin, std::int64_t end) {
      std::vector<char> open(std::size_t(end - begin), 1);  // channels whose largest number has not come yet
      const T factor = How == Reduced::mean ? T(1) / T(pixels) : T(1);
      for (std::int64_t p = 0; p < pixels; ++p)
        for (std::int64_t k = begin; k < end; ++k) {
          const std::int64_t at = (n * pixels + p) * c + k;
          T g = dy[n * c + k] * factor;
          if constexpr (How == Reduced::max) {
            const T best = y[n * c + k];
            const bool it = open[std::size_t(k - begin)] && (x[at] == best || best != best);
            if (it && !(best != best && x[at] == x[at]))
              open[std::size_t(k - begin)] = 0;
            else
              g = 0;
          }
          dx[at] = accumulate ? dx[at] + g : g;
        }
    });
  }
  void forward_on(Accelerator& gpu, const Shape& s, const float* x, float* y) const
    requires(How != Reduced::max)
  {
    const std::int64_t pixels = s.h() * s.w();
    gpu.global_avg_pool_forward(s.n(), pixels, int(s.c()), x, y);
    if (const TensorSpan means{s.n() * s.c(), y}; How == Reduced::sum) gpu.scale({&means, 1}, double(pixels));
  }
  void backward_on(Accelerator& gpu, const Shape& s, const float* dy, float* dx, bool accumulate) const
    requires(How != Reduced::max)
  {
    const std::int64_t pixels = s.h() * s.w(), count = s.n() * s.c();
    if constexpr (How == Reduced::mean) {
      gpu.global_avg_pool_backward(s.n(), pixels, int(s.c()), dy, dx, accumulate);
    } else {
      const Storage scaled = gpu.pool().take(std::size_t(count) * sizeof(float));
      float* const g = static_cast<float*>(scaled.data());
      gpu.copy(g, dy, std::size_t(count) * sizeof(float));
      const TensorSpan all{count, g};
      gpu.scale({&all, 1}, double(pixels));
      gpu.global_avg_pool_backward(s.n(), pixels, int(s.c()), g, dx, accumulate);
    }
  }
  constexpr void trace(auto& t) const { t.whole_image(); }
  template <int Out>
  auto onnx(const auto& x) const {
    return onnx_reduced<Out, How>(x, {2, 3});
  }
};

/// Over all channels, for each pixel.
template <Reduced How>
struct OverChannels {
  static std::string name() {
    return How == Reduced::sum    ? "sum_over_channels"
           : How == Reduced::mean ? "mean_over_channels"
                                  : "max_over_channels";
  }
  static constexpr bool keeps_input = How == Reduced::max, keeps_output = false;

  static Shape result(const Shape& x) { return {x.n(), 1, x.h(), x.w()}; }
  /// The first channel of the largest number, NaN above all.
  template <class T>
  static std::int64_t place(const T* pixel, std::int64_t c) {
    std::int64_t best = 0;
    for (std::int64_t k = 1; k < c && pixel[best] == pixel[best]; ++k)  // until there is a NaN
      if (pixel[k] > pixel[best] || pixel[k] != pixel[k]) best = k;
    return best;
  }
  template <class F>
  static void over_pixels(const Shape& s, F&& f) {
    const std::int64_t pixels = s.n() * s.h() * s.w();
    parallel_ranges(pixels, std::max<std::int64_t>((1 << 14) / s.c(), 1), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p) f(p);
    });
  }
  template <class T>
  static void forward(const Shape& s, const T* x, T* y) {
    const std::int64_t c = s.c();
    over_pixels(s, [&](std::int64_t p) {
      const T* const pixel = x + p * c;
      if constexpr (How == Reduced::max) {
        y[p] = pixel[place(pixel, c)];
      } else {
        T total = 0;
        simd::Vector<T> lanes{};
        simd::over_vectors<T>(c, [&]<class V>(std::int64_t k) STRATA_INLINED {
          if constexpr (std::is_same_v<V, T>)
            total += pixel[k];
          else
            lanes += simd::load<V>(pixel + k);
        });
        for (int lane = 0; lane < simd::lanes<simd::Vector<T>>; ++lane) total += lanes[lane];
        y[p] = How == Reduced::mean ? total / T(c) : total;
      }
    });
  }
  template <class T>
  static void backward(const Shape& s, const T* x, const T*, const T* dy, T* dx, bool accumulate) {
    const std::int64_t c = s.c();
    over_pixels(s, [&](std::int64_t p) {
      T* const to = dx + p * c;
      if constexpr (How == Reduced::max) {
        if (!accumulate) std::fill_n(to, c, T(0));
        to[place(x + p * c, c)] += dy[p];
      } else {
        const T g = How == Reduced::mean ? dy[p] / T(c) : dy[p];
        for (std::int64_t k = 0; k < c; ++k) to[k] = accumulate ? to[k] + g : g;
      }
    });
  }
  constexpr void trace(auto&) const {}
  template <int Out>
  auto onnx(const auto& x) const {
    return onnx_reduced<Out, How>(x, {1});
  }
};

}  // namespace detail

/// x with new rows and columns around it, as torch.nn.functional.pad; negative margins take away. Throws ShapeError
/// where nothing would be left, and for a reflected margin that is not smaller than the image.
template <Pass P, class X>
constexpr auto pad(P& pass, const X& x, const Margins& margins, PaddingMode mode = PaddingMode::zeros) {
  return detail::apply_operator<X::channels>(pass, detail::PadOperator(margins, mode), x);
}

/// `height` rows and `width` columns from row `top` and column `left` on. Throws ShapeError where the image has them
/// not.
template <Pass P, class X>
constexpr auto crop(P& pass, const X& x, std::int64_t top, std::int64_t left, std::int64_t height, std::int64_t width) {
  return detail::apply_operator<X::channels>(pass, detail::CropOperator(top, left, height, width), x);
}

/// The upper left part of x, as large as `like`: x[:, :, :h, :w]. Throws ShapeError where x is smaller, or is another
/// number of images.
template <Pass P, class X, class L>
constexpr auto crop_like(P& pass, const X& x, const L& like) {
  if constexpr (Symbolic<X>) {
    return SymbolicRun<typename X::value_type>::template op<X::channels>(detail::CropLikeOperator{},
                                                                         detail::var_in<P>(x), detail::var_in<P>(like));
  } else {
    const auto of = detail::var_in(pass, x);
    if (of.n() != like.n())
      throw ShapeError(concat("crop_like: got ", of.n(), " images to make as large as ", like.n(),
                              "; wanted equal numbers of images"));
    return crop(pass, of, 0, 0, like.h(), like.w());
  }
}

/// The mean, sum and maximum over the pixels of each image and channel: images of one pixel. The first of equals has a
/// maximum's gradient.
template <Pass P, class X>
constexpr auto mean_over_pixels(P& pass, const X& x) {
  return detail::apply_operator<X::channels>(pass, detail::OverPixels<detail::Reduced::mean>{}, x);
}
template <Pass P, class X>
constexpr auto sum_over_pixels(P& pass, const X& x) {
  return detail::apply_operator<X::channels>(pass, detail::OverPixels<detail::Reduced::sum>{}, x);
}
template <Pass P, class X>
constexpr auto max_over_pixels(P& pass, const X& x) {
  return detail::apply_operator<X::channels>(pass, detail::OverPixels<detail::Reduced::max>{}, x);
}

/// The same over the channels of each pixel: images of one channel.
template <Pass P, class X>
constexpr auto mean_over_channels(P& pass, const X& x) {
  return detail::apply_operator<1>(pass, detail::OverChannels<detail::Reduced::mean>{}, x);
}
template <Pass P, class X>
constexpr auto sum_over_channels(P& pass, const X& x) {
  return detail::apply_operator<1>(pass, detail::OverChannels<detail::Reduced::sum>{}, x);
}
template <Pass P, class X>
constexpr auto max_over_channels(P& pass, const X& x) {
  return detail::apply_operator<1>(pass, detail::OverChannels<detail::Reduced::max>{}, x);
}

}}  // namespace strata::STRATA_ABI
