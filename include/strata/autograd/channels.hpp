// Joining and dividing images along their channels, and repeating one pixel over an image.
//
//     auto both = st::cat(pass, a, b);                          // Var<A + B>: the channels of a, then those of b
//     auto first = st::narrow<0, A>(pass, both);                // Var<A>: A channels from number 0 on
//     auto [u, v] = st::chunk<2>(pass, both);                   // two halves
//     auto weighted = x * st::expand_as(pass, gate, x);         // gate has one pixel: a factor for each channel
#pragma once

#include <array>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/cpu/copy_channels.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Copies `count` pixels of `channels` values between memory of different strides, or adds them.
template <class T>
void copy_channels(Device device, const T* from, int from_stride, T* to, int to_stride, int channels,
                   std::int64_t count, bool accumulate) {
  dispatch<T>(
      device, [&] { cpu::copy_channels(count, channels, from, from_stride, to, to_stride, accumulate); },
      [&](auto& gpu) { gpu.copy_channels(count, channels, from, from_stride, 0, to, to_stride, 0, accumulate); });
}

/// f of the operands as variables of a pass of type P. What is an expression is computed, and recorded, from left to
/// right: as arguments of a call they would be in an order that differs between compilers, and so would gradients' last
/// bits.
template <Pass P, class F, class... Xs>
constexpr auto with_vars(F&& f, const Xs&... operands) {
  return std::apply(f, std::tuple<std::remove_cvref_t<decltype(var_in<P>(operands))>...>{var_in<P>(operands)...});
}

}  // namespace detail

/// The channels of the images one after another, as torch.cat(dim=1). N, H and W must agree: ShapeError.
template <Pass P, class... Xs>
auto cat(P& pass, const Xs&... inputs) {
  return detail::with_vars<P>([&]<int... C, class... T>(const Var<C, T>&... x) {
    using Value = std::common_type_t<T...>;
    constexpr int total = (C + ...);
    const auto& first = std::get<0>(std::tie(x...));
    const auto check_extents = [&](const Shape& s) {
      if (s.n() != first.n() || s.h() != first.h() || s.w() != first.w())
        throw ShapeError(concat("cat: images of shapes ", first.shape().str(), " and ", s.str(),
                                " (N x C x H x W) differ in more than their channels"));
    };
    const Device device = first.device();
    (check_pass(pass, x, "cat"), ...);
    (check_extents(x.shape()), ...);
    (check_same_device(device, x.device(), [] { return "cat"; }), ...);
    Image<total, Value> out(first.n(), first.h(), first.w(), first.pool());
    const std::int64_t pixels = first.n() * first.h() * first.w();
    int offset = 0;
    ((detail::copy_channels<Value>(device, x.data(), C, out.data() + offset, total, C, pixels, false), offset += C),
     ...);
    auto y = pass.output(std::move(out));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [id = y.id(), pixels, ids = std::array{x.id()...}, device](Tape& tape) {
        constexpr std::array counts{C...};
        const Value* gy = tape.gradient<Value>(id);
        for (std::size_t i = 0; i < ids.size(); gy += counts[i], ++i)
          if (const auto gx = tape.target<Value>(ids[i]))
            detail::copy_channels<Value>(device, gy, total, gx.data, counts[i], counts[i], pixels, gx.accumulate);
      });
    return y;
  }, inputs...);
}

template <Pass P, Symbolic... Xs>
constexpr auto cat(P&, const Xs&... inputs) {
  return detail::with_vars<P>([]<int... C, class... S>(const Var<C, S>&... x) {
    return SymbolicRun<std::common_type_t<S...>>::cat(x...);
  }, inputs...);
}

/// Length channels of x, from number Start on, as torch.narrow along dimension 1.
template <int Start, int Length, Pass P, class X>
auto narrow(P& pass, const X& input) {
  return [&]<int C, class T>(const Var<C, T>& x) {
    static_assert(Start >= 0 && Length > 0 && Start + Length <= C,
                  "strata::narrow<Start, Length>: the image has no such channels: Start + Length must not exceed its "
                  "number of channels");
    check_pass(pass, x, "narrow");
    const Device device = x.device();
    const std::int64_t pixels = x.n() * x.h() * x.w();
    Image<Length, T> out(x.n(), x.h(), x.w(), x.pool());
    detail::copy_channels<T>(device, x.data() + Start, C, out.data(), Length, Length, pixels, false);
    auto y = pass.output(std::move(out));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [id = y.id(), x_id = x.id(), pixels, device](Tape& tape) {
        if (T* gx = detail::zeroed_target<T>(device, tape, x_id, pixels * C))
          detail::copy_channels<T>(device, tape.gradient<T>(id), Length, gx + Start, C, Length, pixels, true);
      });
    return y;
  }(detail::var_in<P>(input));
}

template <int Start, int Length, Pass P, Symbolic X>
constexpr auto narrow(P&, const X& input) {
  return SymbolicRun<typename X::value_type>::template narrow<Start, Length>(detail::var_in<P>(input));
}

/// x in N parts of equally many channels, one after another, as torch.chunk along dimension 1: a std::array.
template <int N, Pass P, class X>
constexpr auto chunk(P& pass, const X& input) {
  const auto x = detail::var_in<P>(input);
  constexpr int channels = decltype(x)::channels;
  constexpr bool divides = N > 0 && channels % N == 0;
  static_assert(divides, "strata::chunk<N>: the number of channels must be a multiple of N");
  constexpr int count = divides ? N : 1;  // nothing else fails after the sentence above
  return [&]<int... I>(std::integer_sequence<int, I...>) {
    return std::array{narrow<I * (channels / count), channels / count>(pass, x)...};
  }(std::make_integer_sequence<int, count>());
}

/// Images of one pixel, repeated to the height and width of x, as torch.Tensor.expand_as. ShapeError for other images.
template <Pass P, class S, class X>
auto expand_as(P& pass, const S& one_pixel, const X& like) {
  return detail::with_vars<P>([&]<int C, class T, int D>(const Var<C, T>& s, const Var<D, T>& x) {
    check_pass(pass, s, "expand_as");
    check_pass(pass, x, "expand_as");
    if (s.h() != 1 || s.w() != 1 || s.n() != x.n())
      throw ShapeError(concat("expand_as: got images of shape ", s.shape().str(), " to repeat over ", x.shape().str(),
                              " (N x C x H x W); wanted as many images, of 1 x 1 pixels"));
    const Device device = s.device();
    check_same_device(device, x.device(), [] { return "expand_as"; });
    const std::int64_t pixels = x.h() * x.w();
    Image<C, T> out(x.n(), x.h(), x.w(), s.pool());
    for (std::int64_t n = 0; n < x.n(); ++n)
      detail::copy_channels<T>(device, s.data() + n * C, 0, out.data() + n * pixels * C, C, C, pixels, false);
    auto y = pass.output(std::move(out));
    if constexpr (P::training)
      pass.tape()->record(y.id(), [id = y.id(), s_id = s.id(), n = x.n(), pixels, device,
                                   pool = &s.pool()](Tape& tape) {
        const auto gs = tape.target<T>(s_id);
        if (!gs) return;
        Image<C, T> sum(n, 1, 1, *pool);  // of dy over the pixels
        backend::global_avg_pool_forward<T>(device, n, pixels, C, tape.gradient<T>(id), sum.data());
        detail::dispatch<T>(
            device, [&] { for (T& value : sum.span()) value *= T(pixels); },
            [&](auto& gpu) {
              if constexpr (std::is_same_v<T, float>) {  // clang reads it for others too
                const TensorSpan all{sum.size(), sum.data()};
                gpu.scale({&all, 1}, double(pixels));
              }
            });
        detail::copy_channels<T>(device, sum.data(), C, gs.data, C, C, n, gs.accumulate);
      });
    return y;
  }, one_pixel, like);
}

template <Pass P, Symbolic S, Symbolic X>
constexpr auto expand_as(P&, const S& one_pixel, const X& like) {
  return detail::with_vars<P>(
      [](const auto& s, const auto& x) { return SymbolicRun<typename X::value_type>::expand_as(s, x); }, one_pixel,
      like);
}

}}  // namespace strata::STRATA_ABI
