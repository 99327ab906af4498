// Over the channels of each pixel: softmax, and the length of one. On the CPU; on an accelerator it is a DeviceError.
//
//     st::Softmax2d                                  // as torch.nn.Softmax2d
//     st::LogSoftmax2d                               // torch.nn.LogSoftmax(dim=1)
//     auto l = st::log_softmax(pass, x);             // F.log_softmax(x, dim=1): no probability is too small for it
//     auto p = st::softmax(pass, x);                 // the same as a function: F.softmax(x, dim=1)
//     auto u = st::l2_normalize(pass, x);            // F.normalize(x, dim=1)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "strata/autograd/operators.hpp"
#include "strata/cpu/layer_norm.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/module.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// f(first element) for every pixel, on all threads.
template <class F>
void for_each_pixel(const Shape& s, F&& f) {
  const std::int64_t c = s.c();
  parallel_ranges(s.n() * s.h() * s.w(), std::max<std::int64_t>((1 << 13) / c, 1),
                  [&](std::int64_t begin, std::int64_t end) {
                    for (std::int64_t p = begin; p < end; ++p) f(p * c);
                  });
}

/// The largest of c numbers, and the sum over them of exp(number - largest), each of which goes to keep(k, power).
template <class T, class Keep>
std::pair<T, T> sum_of_powers(const T* x, int c, Keep&& keep) {
  const T most = *std::max_element(x, x + c);
  return {most, cpu::detail::sum_channels<T>(c, [&]<class V>(int k) STRATA_INLINED {
            const V power = math::Exp::value(simd::load<V>(x + k) - (V{} + most));
            keep(k, power);
            return power;
          })};
}

struct SoftmaxOperator {
  static std::string name() { return "softmax"; }
  static constexpr bool keeps_input = false, keeps_output = true;
  static Shape result(const Shape& x) { return x; }
  template <class T>
  static void forward(const Shape& s, const T* x, T* y) {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      T* const to = y + at;
      const auto keep = [&]<class V>(int k, V power) STRATA_INLINED { simd::store<V>(to + k, power); };
      const T share = T(1) / sum_of_powers(x + at, c, keep).second;
      simd::over_vectors<T>(
          c, [&]<class V>(int k) STRATA_INLINED { simd::store<V>(to + k, simd::load<V>(to + k) * share); });
    });
  }
  template <class T>
  static void backward(const Shape& s, const T*, const T* y, const T* dy, T* dx, bool accumulate) {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      const T dot = cpu::detail::sum_channels<T>(
          c, [&]<class V>(int k) STRATA_INLINED { return simd::load<V>(dy + at + k) * simd::load<V>(y + at + k); });
      simd::over_vectors<T>(c, [&]<class V>(int k) STRATA_INLINED {
        const V g = simd::load<V>(y + at + k) * (simd::load<V>(dy + at + k) - dot);
        simd::store<V>(dx + at + k, accumulate ? simd::load<V>(dx + at + k) + g : g);
      });
    });
  }
  constexpr void trace(auto&) const {}
  template <int Out>
  auto onnx(const auto& x) const {
    return x.template node<Out>("Softmax", {}, {{"axis", std::int64_t{1}}});
  }
};

struct LogSoftmaxOperator {
  static std::string name() { return "log_softmax"; }
  static constexpr bool keeps_input = false, keeps_output = true;
  static Shape result(const Shape& x) { return x; }
  template <class T>
  static void forward(const Shape& s, const T* x, T* y) {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      const T* const from = x + at;
      T* const to = y + at;
      const auto [largest, total] = sum_of_powers(from, c, [](int, auto) {});
      const T most = largest,
              shift = std::log(total);  // taken away after the largest, so that large logits do not round it off
      simd::over_vectors<T>(c, [&]<class V>(int k) STRATA_INLINED {
        simd::store<V>(to + k, simd::load<V>(from + k) - (V{} + most) - (V{} + shift));
      });
    });
  }
  /// dy - softmax(x) sum(dy).
  template <class T>
  static void backward(const Shape& s, const T*, const T* y, const T* dy, T* dx, bool accumulate) {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      const T sum =
          cpu::detail::sum_channels<T>(c, [&]<class V>(int k) STRATA_INLINED { return simd::load<V>(dy + at + k); });
      simd::over_vectors<T>(c, [&]<class V>(int k) STRATA_INLINED {
        const V g = simd::load<V>(dy + at + k) - math::Exp::value(simd::load<V>(y + at + k)) * sum;
        simd::store<V>(dx + at + k, accumulate ? simd::load<V>(dx + at + k) + g : g);
      });
    });
  }
  constexpr void trace(auto&) const {}
  template <int Out>
  auto onnx(const auto& x) const {
    return x.template node<Out>("LogSoftmax", {}, {{"axis", std::int64_t{1}}});
  }
};

struct L2NormalizeOperator {
  double eps;
  static std::string name() { return "l2_normalize"; }
  static constexpr bool keeps_input = true, keeps_output = false;
  static Shape result(const Shape& x) { return x; }
  template <class T>
  static T length(const T* pixel, int c) {
    return std::sqrt(cpu::detail::sum_channels<T>(c, [&]<class V>(int k) STRATA_INLINED {
      const V value = simd::load<V>(pixel + k);
      return value * value;
    }));
  }
  template <class T>
  void forward(const Shape& s, const T* x, T* y) const {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      const T divisor = std::max(length(x + at, c), T(eps));
      simd::over_vectors<T>(
          c, [&]<class V>(int k) STRATA_INLINED { simd::store<V>(y + at + k, simd::load<V>(x + at + k) / divisor); });
    });
  }
  /// With l the length: (g - x (g . x) / l^2) / l; where l is below eps it is a constant.
  template <class T>
  void backward(const Shape& s, const T* x, const T*, const T* dy, T* dx, bool accumulate) const {
    const int c = int(s.c());
    for_each_pixel(s, [&](std::int64_t at) {
      const T l = length(x + at, c), divisor = std::max(l, T(eps));
      const T dot = cpu::detail::sum_channels<T>(
          c, [&]<class V>(int k) STRATA_INLINED { return simd::load<V>(dy + at + k) * simd::load<V>(x + at + k); });
      const T part = l > T(eps) ? dot / l / l : T(0);
      simd::over_vectors<T>(c, [&]<class V>(int k) STRATA_INLINED {
        const V g = (simd::load<V>(dy + at + k) - simd::load<V>(x + at + k) * part) / divisor;
        simd::store<V>(dx + at + k, accumulate ? simd::load<V>(dx + at + k) + g : g);
      });
    });
  }
  constexpr void trace(auto&) const {}
  template <int Out>
  auto onnx(const auto& x) const {
    const std::string length = x.operation("ReduceL2", {x.symbol().name}, {{"axes", std::vector<std::int64_t>{1}}});
    const std::string least = x.constant({}, std::vector<float>{float(eps)});
    return x.template node<Out>("Div", {x.operation("Max", {length, least})});
  }
};

}  // namespace detail

/// e^x over the sum of e^x of a pixel's channels.
template <Pass P, class X>
constexpr auto softmax(P& pass, const X& x) {
  return detail::apply_operator<X::channels>(pass, detail::SoftmaxOperator{}, x);
}

/// The logarithm of softmax, which log(softmax(x)) would round off where a probability is small.
template <Pass P, class X>
constexpr auto log_softmax(P& pass, const X& x) {
  return detail::apply_operator<X::channels>(pass, detail::LogSoftmaxOperator{}, x);
}

/// Every pixel's channels divided by their Euclidean length, or by eps where that is larger.
template <Pass P, class X>
constexpr auto l2_normalize(P& pass, const X& x, double eps = 1e-12) {
  return detail::apply_operator<X::channels>(pass, detail::L2NormalizeOperator{eps}, x);
}

namespace detail {

/// An operator over channels as a layer.
template <class Self, class Op>
class ChannelsLayer : public Layer<Self> {
 public:
  using io = keeps;
  static constexpr bool has_state = false, is_leaf_layer = true;
  static constexpr void visit(auto&, auto&&) {}
  static constexpr void trace(auto&) {}
  static LayerMemory memory(const Shape&) { return {.keeps_input = false, .keeps_output = true}; }

  template <Pass P, int C, class T>
  static auto forward(auto&, P& pass, const Var<C, T>& x) {
    return apply_operator<C>(pass, Op{}, x);
  }
  template <int C, class Symbol>
  static auto onnx(auto&, const Var<C, Symbol>& x) {
    return Op{}.template onnx<C>(x);
  }
};

}  // namespace detail

/// softmax and log_softmax as layers.
class Softmax2d : public detail::ChannelsLayer<Softmax2d, detail::SoftmaxOperator> {
 public:
  static std::string name() { return "Softmax2d()"; }
};
class LogSoftmax2d : public detail::ChannelsLayer<LogSoftmax2d, detail::LogSoftmaxOperator> {
 public:
  static std::string name() { return "LogSoftmax(dim=1)"; }
};

}}  // namespace strata::STRATA_ABI
