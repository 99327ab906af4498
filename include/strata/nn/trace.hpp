// What follows from a network's type alone, at compile time or with the image's size given:
//
//     static_assert(st::parameter_count<Net> == 556032);
//     static_assert(st::receptive_field<Net> == 35);
//     st::multiply_adds<Net>(256, 256);      // for one image
//
// A layer says once, in trace(), what it does to an image's extents and what it costs. Containers trace what they contain;
// a custom module is traced as if its members stood one after another, which is exact for counts and for networks that
// keep the image's size, and an upper bound for the receptive field of parallel branches. A module that is not like that
// gives a `static constexpr void trace(auto& t)` of its own.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "strata/autograd/fields.hpp"
#include "strata/autograd/visit.hpp"

namespace strata::inline STRATA_ABI {

/// The image at one point of a network, and the sums so far.
struct Extents {
  std::int64_t c = 0, h = 0, w = 0;
  std::int64_t parameters = 0;     ///< learned numbers
  std::int64_t multiply_adds = 0;  ///< for one image
  double field = 1;                ///< pixels of the input, in one direction, that a pixel here depends on
  double jump = 1;                 ///< pixels of the input between two neighbours here
  bool whole = false;              ///< a pixel here depends on all of the image
  bool valid = true;               ///< false once an extent has fallen below 1
};

namespace detail {

template <class M>
struct IsOptional : std::false_type {};
template <class M>
struct IsOptional<std::optional<M>> : std::true_type { using type = M; };
template <class M>
struct IsArray : std::false_type {};
template <class M, std::size_t N>
struct IsArray<std::array<M, N>> : std::true_type {};

/// Where a layer stands among those that run as one step with it in a training pass (nn/fuse.hpp).
struct FusedStep {
  std::size_t place = 0, length = 1;
};

/// Carries Extents through a network and tells `sink` of each leaf layer.
template <class Sink>
class Tracer {
 public:
  constexpr explicit Tracer(Extents start, Sink sink = {}) : extents_(start), sink_(std::move(sink)) {}

  constexpr const Extents& extents() const { return extents_; }
  constexpr Sink& sink() { return sink_; }

  /// Traces a part. `name` is a string or a number.
  template <class M>
  constexpr void child(const auto& name, FusedStep step = {}) {
    sink_.enter(name, std::as_const(extents_));
    step_ = step;
    run<M>();
    sink_.leave();
  }

  template <class M>
  constexpr void run() {
    if constexpr (requires { M::trace(*this); }) {
      const Extents before = extents_;
      M::trace(*this);
      if constexpr (requires { M::is_leaf_layer; }) sink_.template layer<M>(before, extents_, step_);
    } else if constexpr (has_visit<M>) {
      static_assert(!std::is_same_v<fields_of<M>, Unknown>,
                    "strata: this module's members cannot be told from its type: make it an aggregate with at most 12 "
                    "members, or give it a 'static constexpr void trace(auto& t)'");
      members(fields_of<M>{}, std::make_index_sequence<count(fields_of<M>{})>{});
    } else if constexpr (IsArray<M>::value) {
      for (std::size_t i = 0; i < std::tuple_size_v<M>; ++i) child<typename M::value_type>(i);
    } else if constexpr (IsOptional<M>::value) {
      run<typename IsOptional<M>::type>();
    }
  }

  // ---- what layers say in their trace()

  constexpr void channels(std::int64_t c) { extents_.c = c; }
  constexpr void parameters(std::int64_t count) { extents_.parameters += count; }
  constexpr void multiply_adds(std::int64_t count) { extents_.multiply_adds += count; }
  /// A window of `kernel` taps moved over the image.
  constexpr void window(int kernel, int stride, int padding, int dilation) {
    const auto slide = [&](std::int64_t size) { return (size + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1; };
    const auto fits = [&](std::int64_t size) { return size + 2 * padding >= dilation * (kernel - 1) + 1; };
    extents_.valid = extents_.valid && fits(extents_.h) && fits(extents_.w);
    extents_.h = slide(extents_.h);
    extents_.w = slide(extents_.w);
    extents_.field += double(dilation * (kernel - 1)) * extents_.jump;
    extents_.jump *= stride;
  }
  /// A window of `kernel` taps spread over an image that becomes `stride` times as large.
  constexpr void transposed_window(int kernel, int stride) {
    extents_.field += double((kernel + stride - 1) / stride - 1) * extents_.jump;
    upscale(stride);
  }
  constexpr void upscale(int factor) {
    extents_.h *= factor;
    extents_.w *= factor;
    extents_.jump /= factor;
  }
  /// All pixels become one.
  constexpr void whole_image() {
    looks_at_whole_image();
    extents_.h = extents_.w = 1;
  }
  /// Every pixel depends on all others.
  constexpr void looks_at_whole_image() {
    extents_.field += double(extents_.h > extents_.w ? extents_.h - 1 : extents_.w - 1) * extents_.jump;
    extents_.whole = true;
  }

 private:
  template <class... Fields>
  static constexpr std::size_t count(Types<Fields...>) {
    return sizeof...(Fields);
  }
  template <class... Fields, std::size_t... I>
  constexpr void members(Types<Fields...>, std::index_sequence<I...>) {
    (member<std::remove_cvref_t<Fields>>(I), ...);
  }
  template <class Field>
  constexpr void member(std::size_t index) {
    if constexpr (has_visit<Field> || IsArray<Field>::value || IsOptional<Field>::value)
      child<Field>(index);
    else
      static_assert(!holds_state<Field> || std::is_same_v<Field, Buffer>,
                    "strata: the size of a Parameter and the length of a std::vector cannot be told from the type: give the "
                    "module that holds it a 'static constexpr void trace(auto& t)' with t.template child<M>(\"name\") for "
                    "each module and t.parameters(count)");
  }

  Extents extents_;
  Sink sink_;
  FusedStep step_;
};

struct NoSink {
  constexpr void enter(const auto&, const Extents&) {}
  constexpr void leave() {}
  template <class M>
  constexpr void layer(const Extents&, const Extents&, const FusedStep&) {}
};

template <class Net>
constexpr std::int64_t input_channels() {
  if constexpr (requires { Net::io::in; })
    return Net::io::in;
  else
    return 1;
}

template <class Net>
constexpr Extents trace(std::int64_t h, std::int64_t w) {
  Tracer<NoSink> tracer(Extents{.c = input_channels<Net>(), .h = h, .w = w});
  tracer.template run<Net>();
  return tracer.extents();
}

constexpr std::int64_t round_up(double x) {
  const auto whole = std::int64_t(x);
  return x > double(whole) + 1e-9 ? whole + 1 : whole;
}

}  // namespace detail

/// The number of learned numbers of a network.
template <class Net>
inline constexpr std::int64_t parameter_count = detail::trace<Net>(1 << 12, 1 << 12).parameters;

/// The side of the square of input pixels that one output pixel depends on.
template <class Net>
inline constexpr std::int64_t receptive_field = detail::round_up(detail::trace<Net>(1 << 12, 1 << 12).field);

/// Multiply-adds of the convolutions and linear layers for one image of h rows and w columns.
template <class Net>
constexpr std::int64_t multiply_adds(std::int64_t h, std::int64_t w) {
  return detail::trace<Net>(h, w).multiply_adds;
}

/// The output's extents for an input of h rows and w columns.
template <class Net>
constexpr Extents output_extents(std::int64_t h, std::int64_t w) {
  return detail::trace<Net>(h, w);
}

}  // namespace strata::inline STRATA_ABI
