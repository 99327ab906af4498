// What is true of a network, from its own forward:
//
//     static_assert(st::parameter_count<Net> == 556032);
//     static_assert(st::receptive_field<Net> == 35);
//     st::multiply_adds<Net>(256, 256);      // for one image
//     st::multiply_adds(net, 256, 256);      // of this object: what its members say counts
//
// Branches, loops, shared layers and layers made on the spot count as the forward runs them (nn/follow.hpp). The
// compiler finds these facts where it can: for the library's layers, and for modules of one's own whose call operator
// is constexpr. Elsewhere they are found when they are first asked for, from a network that is made for it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/nn/follow.hpp"
#include "strata/nn/init.hpp"

namespace strata::inline STRATA_ABI {

/// What receptive_field is for a network that looks at the whole image, whatever its size.
inline constexpr std::int64_t whole_image = std::numeric_limits<std::int64_t>::max();

namespace detail {

/// The learned numbers below `member`, each once; of a layer with fixed weights, those.
template <class M>
constexpr std::int64_t count_parameters(const M& member, bool fixed = false) {
  std::int64_t count = 0;
  if constexpr (std::is_same_v<M, Parameter>) {
    count = member.size();
  } else if constexpr (std::is_same_v<M, Buffer>) {
    if (fixed) count = member.shape().size();
  } else if constexpr (has_visit<M>) {
    constexpr bool its = requires { M::has_fixed_weights; };
    M::visit(member, [&](const auto&, const auto& part) { count += count_parameters(part, its); });
  } else if constexpr (holds_state<M>) {  // what each_part of autograd/visit.hpp goes through, without names
    if constexpr (sequence<M> || std::is_array_v<M>) {
      for (const auto& element : member) count += count_parameters(element);
    } else if constexpr (owner<M>) {
      if (member != nullptr) count = count_parameters(*member);
    } else if constexpr (requires { member.has_value(); *member; }) {
      count = member.has_value() ? count_parameters(*member) : 0;
    } else if constexpr (requires { std::tuple_size<M>::value; }) {
      std::apply([&](const auto&... parts) { ((count += count_parameters(parts)), ...); }, member);
    }
  }
  return count;
}

/// The side of the square of input pixels that a pixel of the result depends on: the largest of those that lie
/// differently.
constexpr std::int64_t field_of(const Following& run, int result) {
  const FollowedImage& y = run.image(result);
  std::int64_t period = 1;  // input rows after which all repeats
  for (const FollowedImage& image : run.images()) period = std::lcm(period, image.down);
  std::int64_t field = 0;
  const std::int64_t rows = y.one ? 1 : period / y.down * y.up;
  for (std::int64_t row = 0; row < rows; ++row) {
    const Rows needed = run.rows_of(result, {row, row}, false);
    if (needed.all()) return whole_image;
    field = std::max(field, needed.count());
  }
  return field;
}

/// The image at the end of a run.
constexpr Extents extents_of(const Following& run, int result) {
  const FollowedImage& y = run.image(result);
  return {.c = y.c,
          .h = y.h,
          .w = y.w,
          .multiply_adds = run.multiply_adds(),
          .whole = run.rows_of(result, {0, 0}, false).all(),
          .valid = run.valid()};
}

/// A network made to be followed, or to be counted.
template <class Net>
class Made {
  static constexpr bool can_be = std::is_default_constructible_v<Net>;
  static_assert(can_be,
                "strata: a network without a default constructor cannot be made from its type alone: ask the object, as in "
                "st::facts(net, h, w), st::summary(net), st::training_bytes(net, n, h, w)");

 public:
  constexpr Made() {
    if constexpr (can_be) {
      const DefaultWeightsUntouched untouched;  // a question changes no weights of the networks made after it
      net_ = new Net();
    }
  }
  Made(const Made&) = delete;
  constexpr ~Made() { delete net_; }
  constexpr Net& operator*() const { return *net_; }

 private:
  Net* net_ = nullptr;
};

/// The questions that have one answer for each network.
struct AskParameters {
  template <class Net>
  static constexpr std::int64_t of() {
    const Made<Net> net;
    return count_parameters(*net);
  }
};
struct AskField {
  template <class Net>
  static constexpr std::int64_t of() {
    const Made<Net> net;
    Following run(1);
    Infer pass;
    return field_of(run, follow(run, *net, pass, 1 << 10, 1 << 10));
  }
};

/// An answer that the compiler cannot give, since the network's call operator, visit or a constructor is not constexpr:
/// it is found when it is first asked for.
template <class Net, class Ask>
struct KnownWhenTheProgramRuns {
  operator std::int64_t() const {
    static const std::int64_t answer = Ask::template of<Net>();
    return answer;
  }
};
template <class Net, class Ask>
std::integral_constant<std::int64_t, Ask::template of<Net>()> answer_type(int);  // where that is a constant expression
template <class Net, class Ask>
KnownWhenTheProgramRuns<Net, Ask> answer_type(...);
template <class Net, class Ask>
constexpr auto answer() {
  using Answer = decltype(answer_type<Net, Ask>(0));
  if constexpr (requires { Answer::value; })
    return Answer::value;
  else
    return Answer();
}

[[noreturn]] inline void throw_does_not_fit(const char* who, const Following& run, std::int64_t h, std::int64_t w) {
  throw ShapeError(concat(who, ": an image of ", h, " x ", w, " pixels does not suit the network: ", run.problem(),
                          ": give another height and width"));
}
constexpr void check_fits(const char* who, const Following& run, std::int64_t h, std::int64_t w) {
  if (!run.valid()) throw_does_not_fit(who, run, h, w);
}
constexpr void check_extents(const char* who, std::int64_t h, std::int64_t w) {
  if (h < 1 || w < 1) throw ShapeError(concat(who, ": got an image of ", h, " x ", w, " pixels; wanted 1 or more"));
}

}  // namespace detail

/// The number of learned numbers of a network: those its visit lists, a shared one once. A std::int64_t, or converts to
/// one.
template <class Net>
inline constexpr auto parameter_count = detail::answer<Net, detail::AskParameters>();

/// The side of the square of input pixels that one output pixel depends on. A std::int64_t, or converts to one.
template <class Net>
inline constexpr auto receptive_field = detail::answer<Net, detail::AskField>();

/// The output's extents for an input of h rows and w columns.
template <class Net>
constexpr Extents output_extents(const Net& net, std::int64_t h, std::int64_t w) {
  detail::check_extents("output_extents", h, w);
  detail::Following run(1);
  Infer pass;
  return detail::extents_of(run, detail::follow(run, net, pass, h, w));
}
template <class Net>
constexpr Extents output_extents(std::int64_t h, std::int64_t w) {
  const detail::Made<Net> net;
  return output_extents(*net, h, w);
}

/// Multiply-adds of the convolutions and linear layers for one image of h rows and w columns. Throws ShapeError where
/// the image does not suit the network.
template <class Net>
constexpr std::int64_t multiply_adds(const Net& net, std::int64_t h, std::int64_t w) {
  detail::check_extents("multiply_adds", h, w);
  detail::Following run(1);
  Infer pass;
  detail::follow(run, net, pass, h, w);
  detail::check_fits("multiply_adds", run, h, w);
  return run.multiply_adds();
}
template <class Net>
constexpr std::int64_t multiply_adds(std::int64_t h, std::int64_t w) {
  const detail::Made<Net> net;
  return multiply_adds(*net, h, w);
}

/// All of them at once, of a network as it is.
struct Facts {
  std::int64_t parameters, multiply_adds, receptive_field;
  Extents output;
};
template <class Net>
constexpr Facts facts(const Net& net, std::int64_t h, std::int64_t w) {
  detail::check_extents("facts", h, w);
  detail::Following run(1);
  Infer pass;
  const int y = detail::follow(run, net, pass, h, w);
  detail::check_fits("facts", run, h, w);
  return {.parameters = detail::count_parameters(net),
          .multiply_adds = run.multiply_adds(),
          .receptive_field = detail::field_of(run, y),
          .output = detail::extents_of(run, y)};
}

}  // namespace strata::inline STRATA_ABI
