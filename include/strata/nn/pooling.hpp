// MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, GlobalAvgPool2d, PixelShuffle and PixelUnshuffle.
//
//     st::MaxPool2d<2>             // windows of 2x2, stride 2
//     st::MaxPool2d<3, 2, 1>       // windows of 3x3, stride 2, padding 1: as in a ResNet
//     st::AvgPool2d<3, 1>          // windows of 3x3, stride 1
//     st::AvgPool2d<3, 2, 1, st::AvgPool2dOptions{.ceil_mode = true, .count_include_pad = false}>
//     st::AdaptiveAvgPool2d<7, 7>  // 7x7 means, whatever the image's size
//     st::PixelShuffle<64, 2>      // 64 channels of h x w -> 16 channels of 2h x 2w
//     st::PixelUnshuffle<3, 2>     // 3 channels of h x w -> 12 channels of h/2 x w/2
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/cpu/pooling.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

/// As torch.nn.MaxPool2d's.
struct MaxPool2dOptions {
  bool ceil_mode = false;  ///< a last window may reach beyond the image, so that no pixel is left out
};
/// As torch.nn.AvgPool2d's.
struct AvgPool2dOptions {
  bool ceil_mode = false;
  bool count_include_pad = true;  ///< a mean counts the padding's zeros
};

namespace detail {

template <int Kernel, int Stride, int Padding, bool Ceil, bool CountPadding>
struct Pooling {
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.pooling_window(Kernel, Stride, Padding, Ceil); }

  static constexpr PoolProblem problem_of(const Shape& x) {
    return {.n = x.n(),
            .h = x.h(),
            .w = x.w(),
            .channels = int(x.c()),
            .kernel = Kernel,
            .stride = Stride,
            .padding = Padding,
            .ceil = Ceil,
            .count_padding = CountPadding};
  }
  template <class Self>
  static PoolProblem problem(const Shape& x) {
    const PoolProblem p = problem_of(x);
    if (x.h() < 1 || x.w() < 1 || p.out_h() < 1 || p.out_w() < 1)
      throw ShapeError(concat(Self::name(), ": an image of ", x.h(), " x ", x.w(),
                              " pixels is smaller than the window of ", Kernel, " x ", Kernel,
                              Padding > 0 ? " with its padding" : ""));
    return p;
  }
  static std::string text(const char* layer) {
    return concat(layer, "(kernel_size=", Kernel, ", stride=", Stride, Padding > 0 ? concat(", padding=", Padding) : "",
                  Ceil ? ", ceil_mode=True" : "", CountPadding ? "" : ", count_include_pad=False", ")");
  }
  /// For io/onnx_export.hpp.
  template <int C>
  static auto onnx_node(const auto& x, bool average) {
    const auto two = [](std::int64_t number) { return std::vector<std::int64_t>{number, number}; };
    const auto image = x.as_image();
    if constexpr (Padding == 0 && !Ceil)
      return image.template node_of_other_size<C>(average ? "AveragePool" : "MaxPool", {},
                                                  {{"kernel_shape", two(Kernel)}, {"strides", two(Stride)}});
    else if (!average)
      return image.template node_of_other_size<C>("MaxPool", {},
                                                  {{"kernel_shape", two(Kernel)},
                                                   {"strides", two(Stride)},
                                                   {"pads", std::vector<std::int64_t>(4, Padding)},
                                                   {"ceil_mode", std::int64_t{Ceil}}});
    else
      return image.template node_of_other_size<C>(
          "AveragePool", {},
          {{"kernel_shape", two(Kernel)}, {"strides", two(Stride)}, {"pads", std::vector<std::int64_t>(4, Padding)},
           {"ceil_mode", std::int64_t{Ceil}}, {"count_include_pad", std::int64_t{CountPadding}}});
  }

  static_assert(Kernel > 0 && Stride > 0, "strata: pooling windows and strides must be positive");
  static_assert(
      Padding >= 0 && 2 * Padding <= Kernel,
      "strata: a pooling's padding must be from 0 to half of its window: a window would else lie in the padding alone");
};

}  // namespace detail

namespace detail {

/// Of a training pass: where each of the largest came from.
inline std::size_t max_pool_bytes(const PoolProblem& p) {
  const auto results = std::size_t(p.n * p.channels * p.out_h() * p.out_w());
  return MemoryPool::block_bytes(results * sizeof(std::int64_t));
}

template <int C, class T>
Var<C, T> max_windows_on_accelerator(Train& pass, const PoolProblem& problem, const Var<C, T>& x, Image<C, T> image) {
  if constexpr (!std::is_same_v<T, float>) {
    throw_not_float(x.device());
  } else {
    Accelerator& gpu = accelerator(x.device());
    const Storage place = x.pool().take(std::size_t(image.size()) * sizeof(std::int32_t));
    auto* places = static_cast<std::int32_t*>(place.data());
    gpu.max_pool_forward(problem, x.data(), image.data(), places);
    auto y = pass.output(std::move(image));
    pass.tape()->record(y.id(), [&gpu, problem, place, places, x_id = x.id(), id = y.id()](Tape& tape) {
      if (const auto dx = tape.target<float>(x_id))
        gpu.max_pool_backward(problem, places, tape.gradient<float>(id), dx.data, dx.accumulate);
    });
    return y;
  }
}

template <Pass P, int C, class T>
Var<C, T> max_windows(P& pass, const PoolProblem& problem, const Var<C, T>& x) {
  Image<C, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
  T* const out = image.data();
  if constexpr (!P::training) {
    dispatch<T>(
        x.device(), [&] { cpu::max_pool_forward<T>(problem, x.data(), out, nullptr); },
        [&](auto& gpu) { gpu.max_pool_forward(problem, x.data(), out, nullptr); });
    return pass.output(std::move(image));
  } else {
    if (on_accelerator(x.device())) return max_windows_on_accelerator(pass, problem, x, std::move(image));
    Tensor<std::int64_t> from(image.shape());
    cpu::max_pool_forward(problem, x.data(), out, from.data());
    auto y = pass.output(std::move(image));
    pass.tape()->record(y.id(), [problem, from, x_id = x.id(), size = x.size(), id = y.id()](Tape& tape) {
      if (T* dx = zeroed_target<T>(Device::cpu(), tape, x_id, size))
        cpu::max_pool_backward(problem, from.data(), tape.gradient<T>(id), dx);
    });
    return y;
  }
}

}  // namespace detail

/// The largest value of each window.
template <int Kernel, int Stride = Kernel, int Padding = 0, MaxPool2dOptions Options = MaxPool2dOptions{}>
class MaxPool2d : public Layer<MaxPool2d<Kernel, Stride, Padding, Options>>,
                  public detail::Pooling<Kernel, Stride, Padding, Options.ceil_mode, true> {
 public:
  static LayerMemory memory(const Shape& x) {
    return {.kept = detail::max_pool_bytes(MaxPool2d::problem_of(x)), .keeps_input = false};
  }
  static std::string name() { return MaxPool2d::text("MaxPool2d"); }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) { return MaxPool2d::template onnx_node<C>(x, false); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return detail::max_windows(pass, MaxPool2d::template problem<MaxPool2d>(x.shape()), x);
  }
};

namespace detail {

template <Pass P, int C, class T>
Var<C, T> average_windows(P& pass, const PoolProblem& problem, const Var<C, T>& x) {
  Image<C, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
  backend::avg_pool_forward(x.device(), problem, x.data(), image.data());
  auto y = pass.output(std::move(image));
  if constexpr (P::training)
    pass.tape()->record(y.id(), [problem, x_id = x.id(), size = x.size(), id = y.id(),
                                 device = x.device()](Tape& tape) {
      dispatch<T>(
          device,
          [&] {
            if (T* dx = zeroed_target<T>(Device::cpu(), tape, x_id, size))
              cpu::avg_pool_backward(problem, tape.gradient<T>(id), dx);
          },
          [&](auto& gpu) {
            if (const auto dx = tape.target<T>(x_id))
              gpu.avg_pool_backward(problem, tape.gradient<T>(id), dx.data, dx.accumulate);
          });
    });
  return y;
}

}  // namespace detail

/// The mean of each window.
template <int Kernel, int Stride = Kernel, int Padding = 0, AvgPool2dOptions Options = AvgPool2dOptions{}>
class AvgPool2d : public Layer<AvgPool2d<Kernel, Stride, Padding, Options>>,
                  public detail::Pooling<Kernel, Stride, Padding, Options.ceil_mode, Options.count_include_pad> {
 public:
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return AvgPool2d::text("AvgPool2d"); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return detail::average_windows(pass, AvgPool2d::template problem<AvgPool2d>(x.shape()), x);
  }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) {
    return AvgPool2d::template onnx_node<C>(x, true);
  }
};

/// The mean of every channel: images of one pixel.
class GlobalAvgPool2d : public Layer<GlobalAvgPool2d> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.whole_image(); }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return "GlobalAvgPool2d()"; }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) {
    return x.as_image().template node_of_other_size<C>("GlobalAveragePool");
  }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    const std::int64_t pixels = x.h() * x.w();
    if (pixels == 0) throw ShapeError("GlobalAvgPool2d: the image has no pixels");
    Image<C, T> image(x.n(), 1, 1, x.pool());
    backend::global_avg_pool_forward(x.device(), x.n(), pixels, C, x.data(), image.data());
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), pixels, x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id))
          backend::global_avg_pool_backward<T>(device, n, pixels, C, tape.gradient<T>(id), dx.data, dx.accumulate);
      });
    return y;
  }
};

/// H x W means that divide the image, as torch.nn.AdaptiveAvgPool2d((H, W)): of rows i*h/H, rounded down, to (i+1)*h/H,
/// rounded up.
template <int H, int W = H>
class AdaptiveAvgPool2d : public Layer<AdaptiveAvgPool2d<H, W>> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.whole_image(H, W); }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("AdaptiveAvgPool2d(output_size=(", H, ", ", W, "))"); }

  template <Pass P, int C, class T>
  static auto forward(auto& self, P& pass, const Var<C, T>& x) {
    if (x.h() * x.w() == 0) throw ShapeError(concat(name(), ": the image has no pixels"));
    if constexpr (H == 1 && W == 1)
      return GlobalAvgPool2d::forward(self, pass, x);
    else
      return detail::average_windows(
          pass, {.n = x.n(), .h = x.h(), .w = x.w(), .channels = C, .parts_h = H, .parts_w = W}, x);
  }

  /// For io/onnx_export.hpp. ONNX has this for one pixel alone: otherwise a product with a matrix of means from each
  /// side, which the graph makes from the image's size.
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& input) {
    const auto x = input.as_image();
    if constexpr (H == 1 && W == 1) {
      return x.template node_of_other_size<C>("GlobalAveragePool");
    } else {
      const std::string rows = means(x, 2, H), columns = x.operation("Transpose", {means(x, 3, W)});
      return x.template result<C>(x.operation("MatMul", {x.operation("MatMul", {rows, x.symbol().name}), columns}));
    }
  }

 private:
  /// The matrix, parts x size, of the means over an axis of x: 1 / (end - begin) for begin <= pixel < end.
  static std::string means(const auto& x, std::int64_t axis, std::int64_t parts) {
    const auto number = [&](std::int64_t value) { return x.constant({}, std::vector<std::int64_t>{value}); };
    const auto floats = [&](const std::string& name) { return x.operation("Cast", {name}, {{"to", std::int64_t{1}}}); };
    std::vector<std::int64_t> numbers(std::size_t(parts), 0);
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = std::int64_t(i);
    const std::string size = x.operation("Gather", {x.operation("Shape", {x.symbol().name}), number(axis)}),
                      all = number(parts);
    const std::string from = x.operation("Mul", {x.constant({parts, 1}, numbers), size});
    const std::string begin = x.operation("Div", {from, all});
    const std::string end =
        x.operation("Div", {x.operation("Add", {x.operation("Add", {from, size}), number(parts - 1)}), all});
    const std::string pixel = x.operation("Range", {number(0), size, number(1)});
    const std::string inside =
        x.operation("And", {x.operation("GreaterOrEqual", {pixel, begin}), x.operation("Less", {pixel, end})});
    return x.operation("Div", {floats(inside), floats(x.operation("Sub", {end, begin}))});
  }

  static_assert(H > 0 && W > 0, "strata::AdaptiveAvgPool2d<H, W>: both must be positive");
};

/// Images of In channels and h x w pixels become In/(r*r) channels and (r*h) x (r*w) pixels, as torch.nn.PixelShuffle.
template <int In, int Factor>
class PixelShuffle : public Layer<PixelShuffle<In, Factor>> {
 public:
  static constexpr int out = In / (Factor * Factor);
  using io = maps<In, out>;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    t.channels(out);
    t.upscale(Factor);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("PixelShuffle(upscale_factor=", Factor, ")"); }
  static auto onnx(auto&, const auto& x) {
    return x.as_image().template node_of_other_size<out>("DepthToSpace", {},
                                                         {{"blocksize", std::int64_t{Factor}}, {"mode", "CRD"}});
  }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<In, T>& x) {
    Image<out, T> image(x.n(), x.h() * Factor, x.w() * Factor, x.pool());
    backend::pixel_shuffle(x.device(), x.n(), x.h(), x.w(), out, Factor, x.data(), image.data(), false, false);
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), h = x.h(), w = x.w(), x_id = x.id(), id = y.id(),
                                   device = x.device()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id))
          backend::pixel_shuffle<T>(device, n, h, w, out, Factor, tape.gradient<T>(id), dx.data, true, dx.accumulate);
      });
    return y;
  }

  static_assert(In > 0 && Factor > 0, "strata::PixelShuffle<In, Factor>: both must be positive");
  static_assert(In % (Factor * Factor) == 0,
                "strata::PixelShuffle<In, Factor>: In must be a multiple of Factor * Factor");
};

/// Images of In channels and h x w pixels become In*r*r channels and (h/r) x (w/r) pixels, as torch.nn.PixelUnshuffle.
/// h and w must be multiples of r: ShapeError.
template <int In, int Factor>
class PixelUnshuffle : public Layer<PixelUnshuffle<In, Factor>> {
 public:
  static constexpr int out = In * Factor * Factor;
  using io = maps<In, out>;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) {
    t.wants_multiple_of(Factor);
    t.channels(out);
    t.window(Factor, Factor, 0, 1);
  }
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("PixelUnshuffle(downscale_factor=", Factor, ")"); }
  /// ONNX puts the pixels of a square before its channels, PyTorch behind: the channels are put in order afterwards.
  static auto onnx(auto&, const auto& x) {
    const auto y =
        x.as_image().template node_of_other_size<out>("SpaceToDepth", {}, {{"blocksize", std::int64_t{Factor}}});
    if constexpr (In == 1) {
      return y;
    } else {
      std::vector<std::int64_t> order;
      for (int c = 0; c < In; ++c)
        for (int pixel = 0; pixel < Factor * Factor; ++pixel) order.push_back(pixel * In + c);
      return y.template node<out>("Gather", {x.constant({out}, order)}, {{"axis", std::int64_t{1}}});
    }
  }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<In, T>& x) {
    if (x.h() % Factor != 0 || x.w() % Factor != 0 || x.size() == 0)
      throw ShapeError(concat(name(), ": an image of ", x.h(), " x ", x.w(), " pixels is no multiple of ", Factor,
                              " in both directions: crop or pad it"));
    const std::int64_t h = x.h() / Factor, w = x.w() / Factor;
    Image<out, T> image(x.n(), h, w, x.pool());
    backend::pixel_shuffle(x.device(), x.n(), h, w, In, Factor, x.data(), image.data(), true, false);
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), h, w, x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id))
          backend::pixel_shuffle<T>(device, n, h, w, In, Factor, tape.gradient<T>(id), dx.data, false, dx.accumulate);
      });
    return y;
  }

  static_assert(In > 0 && Factor > 0, "strata::PixelUnshuffle<In, Factor>: both must be positive");
};

}}  // namespace strata::STRATA_ABI
