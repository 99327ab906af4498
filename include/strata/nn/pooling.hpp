// MaxPool2d, AvgPool2d, GlobalAvgPool2d, PixelShuffle and PixelUnshuffle.
//
//     st::MaxPool2d<2>             // windows of 2x2, stride 2
//     st::AvgPool2d<3, 1>          // windows of 3x3, stride 1
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

namespace strata::inline STRATA_ABI {

namespace detail {

template <int Kernel, int Stride>
struct Pooling {
  static_assert(Kernel > 0 && Stride > 0, "strata: pooling windows and strides must be positive");
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto& t) { t.window(Kernel, Stride, 0, 1); }

  template <int C, class Symbol>
  static auto onnx_as(const char* op, const Var<C, Symbol>& x) {
    const auto two = [](int number) { return std::vector<std::int64_t>{number, number}; };
    return x.image().template node_of_other_size<C>(op, {}, {{"kernel_shape", two(Kernel)}, {"strides", two(Stride)}});
  }

  template <class Self, int C, class T>
  static cpu::PoolProblem problem(const Var<C, T>& x) {
    if (x.h() < Kernel || x.w() < Kernel)
      throw ShapeError(concat(Self::name(), ": an image of ", x.h(), " x ", x.w(), " pixels is smaller than the window of ",
                              Kernel, " x ", Kernel));
    return {.n = x.n(), .h = x.h(), .w = x.w(), .channels = C, .kernel = Kernel, .stride = Stride};
  }
};

}  // namespace detail

/// The largest value of each window.
template <int Kernel, int Stride = Kernel>
class MaxPool2d : public Layer<MaxPool2d<Kernel, Stride>>, public detail::Pooling<Kernel, Stride> {
 public:
  /// Where each of the result came from.
  static LayerMemory memory(const Shape& x) {
    const auto results = std::size_t(x.n() * x.c() * ((x.h() - Kernel) / Stride + 1) * ((x.w() - Kernel) / Stride + 1));
    return {.kept = MemoryPool::block_bytes(results * sizeof(std::int64_t)), .keeps_input = false};
  }
  static std::string name() { return concat("MaxPool2d(kernel_size=", Kernel, ", stride=", Stride, ")"); }
  static auto onnx(auto&, const auto& x) { return MaxPool2d::onnx_as("MaxPool", x); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    const auto problem = MaxPool2d::template problem<MaxPool2d>(x);
    Image<C, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    T* const out = image.data();
    if constexpr (!P::training) {
      detail::dispatch<T>(
          x.device(), [&] { cpu::max_pool_forward<T>(problem, x.data(), out, nullptr); },
          [&](auto& gpu) { gpu.max_pool_forward(problem, x.data(), out, nullptr); });
      return pass.output(std::move(image));
    } else {
      if (on_accelerator(x.device())) return forward_on_accelerator(pass, problem, x, std::move(image));
      Tensor<std::int64_t> from(image.shape());
      cpu::max_pool_forward(problem, x.data(), out, from.data());
      auto y = pass.output(std::move(image));
      pass.tape()->record(y.id(), [problem, from, x_id = x.id(), size = x.size(), id = y.id()](Tape& tape) {
        if (T* dx = detail::zeroed_target<T>(Device::cpu(), tape, x_id, size))
          cpu::max_pool_backward(problem, from.data(), tape.gradient<T>(id), dx);
      });
      return y;
    }
  }

 private:
  template <int C, class T>
  static Var<C, T> forward_on_accelerator(Train& pass, const PoolProblem& problem, const Var<C, T>& x, Image<C, T> image) {
    if constexpr (!std::is_same_v<T, float>) {
      detail::throw_not_float(x.device());
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
};

/// The mean of each window.
template <int Kernel, int Stride = Kernel>
class AvgPool2d : public Layer<AvgPool2d<Kernel, Stride>>, public detail::Pooling<Kernel, Stride> {
 public:
  static LayerMemory memory(const Shape&) { return {.keeps_input = false}; }
  static std::string name() { return concat("AvgPool2d(kernel_size=", Kernel, ", stride=", Stride, ")"); }
  static auto onnx(auto&, const auto& x) { return AvgPool2d::onnx_as("AveragePool", x); }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    const auto problem = AvgPool2d::template problem<AvgPool2d>(x);
    Image<C, T> image(problem.n, problem.out_h(), problem.out_w(), x.pool());
    backend::avg_pool_forward(x.device(), problem, x.data(), image.data());
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [problem, x_id = x.id(), size = x.size(), id = y.id(), device = x.device()](Tape& tape) {
        detail::dispatch<T>(
            device,
            [&] {
              if (T* dx = detail::zeroed_target<T>(Device::cpu(), tape, x_id, size))
                cpu::avg_pool_backward(problem, tape.gradient<T>(id), dx);
            },
            [&](auto& gpu) {
              if (const auto dx = tape.target<T>(x_id))
                gpu.avg_pool_backward(problem, tape.gradient<T>(id), dx.data, dx.accumulate);
            });
      });
    return y;
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
    return x.image().template node_of_other_size<C>("GlobalAveragePool");
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
    return x.image().template node_of_other_size<out>("DepthToSpace", {}, {{"blocksize", std::int64_t{Factor}}, {"mode", "CRD"}});
  }

  template <Pass P, class T>
  static auto forward(auto&, P& pass, const Var<In, T>& x) {
    Image<out, T> image(x.n(), x.h() * Factor, x.w() * Factor, x.pool());
    backend::pixel_shuffle(x.device(), x.n(), x.h(), x.w(), out, Factor, x.data(), image.data(), false, false);
    auto y = pass.output(std::move(image));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [n = x.n(), h = x.h(), w = x.w(), x_id = x.id(), id = y.id(), device = x.device()](Tape& tape) {
        if (const auto dx = tape.target<T>(x_id))
          backend::pixel_shuffle<T>(device, n, h, w, out, Factor, tape.gradient<T>(id), dx.data, true, dx.accumulate);
      });
    return y;
  }

  static_assert(In > 0 && Factor > 0, "strata::PixelShuffle<In, Factor>: both must be positive");
  static_assert(In % (Factor * Factor) == 0, "strata::PixelShuffle<In, Factor>: In must be a multiple of Factor * Factor");
};

/// Images of In channels and h x w pixels become In*r*r channels and (h/r) x (w/r) pixels, as torch.nn.PixelUnshuffle. h
/// and w must be multiples of r: ShapeError.
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
    const auto y = x.image().template node_of_other_size<out>("SpaceToDepth", {}, {{"blocksize", std::int64_t{Factor}}});
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

}  // namespace strata::inline STRATA_ABI
