// Compares gradients with differences of function values, in double: the test for a module or an operation of your own.
//
//     CHECK(st::gradient_check(net, st::Image<3>::full(2, 8, 8, 0.5f)).ok());                      // a module
//     const auto report = st::gradient_check(
//         [](auto& pass, const auto& x) { return st::custom_op(pass, forward, backward, x); }, image);   // a function
//     if (!report.ok()) std::cerr << report.str();
//
// Modules and functions must take images of double: write their call operators for `const auto& x`.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/scalar.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/core/random.hpp"

namespace strata { inline namespace STRATA_ABI {

struct GradientCheckOptions {
  double step = 1e-5;       ///< of the differences, for numbers up to 1; relative to larger ones
  double tolerance = 1e-5;  ///< the relative error that is still right
  std::int64_t samples = 100;  ///< how many numbers of each parameter and input are checked, drawn at random; 0: all
  std::uint64_t seed = 1;   ///< of that draw, of the weights of the outputs, and of layers such as Dropout
};

struct GradientCheckReport {
  double largest_error = 0;     ///< relative: |difference| / max(|gradient|, a thousandth of the largest of its tensor)
  /// the name and index of that number, as "body.0.weight[3, 0, 1, 1]" or "input 0[0, 2, 5, 7]"
  std::string where;
  double gradient = 0;          ///< what backward gives there
  double difference_quotient = 0;  ///< what the function's values give there
  std::int64_t checked = 0;
  double tolerance = 0;

  bool ok() const { return checked > 0 && largest_error <= tolerance; }

  std::string str() const {
    return concat("gradient check of ", checked, " numbers: ", ok() ? "ok" : "WRONG", ", largest relative error ",
                  largest_error, " (tolerance ", tolerance, ") at ", where, ": backward gives ", gradient,
                  ", differences of values give ", difference_quotient);
  }
};

namespace detail {

/// Stands in for the module of a function that has none.
struct NoModule {
  static constexpr bool has_state = false;
  static constexpr void visit(auto&, auto&&) {}
};

template <int C, class T>
Image<C, double> to_double(const Image<C, T>& image) {
  Image<C, double> out(image.n(), image.h(), image.w());
  for (std::int64_t i = 0; i < image.size(); ++i) out.data()[i] = double(image.data()[i]);
  return out;
}

/// "[n, c, h, w]" of the number at `offset` in memory.
inline std::string index_text(const Shape& shape, std::int64_t offset) {
  if (shape.rank() == 4) {
    const std::int64_t c = offset % shape.c(), pixel = offset / shape.c();
    const std::int64_t row = pixel / shape.w();
    return concat("[", row / shape.h(), ", ", c, ", ", row % shape.h(), ", ", pixel % shape.w(), "]");
  }
  std::string text;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    text = concat(offset % shape[axis], axis + 1 < shape.rank() ? ", " : "", text);
    offset /= shape[axis];
  }
  return "[" + text + "]";
}

/// A Scalar as it is; images weighted with fixed random numbers and summed, so that every element of them counts.
template <class Y>
Scalar<double> as_loss(const Y& y, std::uint64_t seed) {
  if constexpr (std::is_same_v<Y, Scalar<double>>) {
    return y;
  } else {
    static_assert(std::is_same_v<typename Y::value_type, double>,
                  "strata::gradient_check: given images of double, this gives other images");
    const auto image = as_var(y);
    Image<Y::channels, double> weights(image.n(), image.h(), image.w());
    Rng rng(seed, 0xFFFFFFFFu, 0);
    for (double& w : weights.span()) w = double(rng.normal());
    return sum(image * weights);
  }
}

}  // namespace detail

/// gradient_check with options: GradientCheck({.samples = 20})(net, image).
class GradientCheck {
 public:
  explicit GradientCheck(GradientCheckOptions options = {}) : options_(options) {
    if (!(options_.step > 0) || !(options_.tolerance > 0) || options_.samples < 0)
      throw ValueError("gradient_check: step and tolerance must be more than 0, samples not negative");
  }

  /// Checks f(pass, image): the gradients of all inputs, and of all parameters when f is a module. f is copied and its
  /// copy converted to double. f may give a Scalar, or images: then it is a randomly weighted sum of them that is
  /// checked. It is called as in training, must give the same result each time, and have no kinks at the inputs. What a
  /// module keeps besides its parameters and changes in a pass is put back before each call.
  template <class F, int... C, class... T>
  GradientCheckReport operator()(const F& f, const Image<C, T>&... images) const {
    if constexpr (detail::has_visit<F>) {
      F module = f;
      to<double>(module);
      return check_all(module, [&](Train& pass, const auto&... x) { return apply(module, pass, x...); },
                   detail::to_double(images)...);
    } else {
      detail::NoModule none;
      return check_all(none, [&](Train& pass, const auto&... x) { return apply(f, pass, x...); },
                   detail::to_double(images)...);
    }
  }

  /// The same for loss(net(pass, image)).
  template <detail::has_visit Net, class Loss, int... C, class... T>
    requires(!detail::variable_operand<Loss>)
  GradientCheckReport operator()(const Net& net, const Loss& loss, const Image<C, T>&... images) const {
    Net module = net;
    to<double>(module);
    return check_all(module, [&](Train& pass, const auto&... x) { return loss(apply(module, pass, x...)); },
                 detail::to_double(images)...);
  }

 private:
  template <class F, class... X>
  static auto apply(F& f, Train& pass, const X&... x) {
    constexpr bool takes_double = requires { f(pass, x...); };
    static_assert(
        takes_double,
        "strata::gradient_check: cannot be called as f(pass, x...) with images of double: write its call operator "
        "for 'const auto& x', and give as many images as it takes");
    if constexpr (takes_double)
      return f(pass, x...);
    else
      return Scalar<double>();
  }

  /// One tensor under check: its numbers, and their gradient.
  struct Checked {
    std::string name;
    Shape shape;
    double* value;
    std::vector<double> gradient;
  };

  template <class M, class F, int... C>
  GradientCheckReport check_all(M& module, F&& f, Image<C, double>... images) const {
    const auto pass_of = [&] { return Train({.seed = options_.seed, .step = 0}); };
    std::vector<Checked> all;
    zero_grad(module);
    std::vector<std::pair<AnyTensor*, AnyTensor>> buffers;
    for_each_tensor(module, [&](const std::string&, auto& leaf) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Buffer>)
        buffers.emplace_back(&leaf.any_value(), detail::clone(leaf.any_value()));
    });
    {
      Train pass = pass_of();
      [&](const auto&... x) {
        const Scalar<double> loss = detail::as_loss(f(pass, x...), options_.seed);
        if (loss.tape() == nullptr)
          throw Error("gradient_check: the result does not depend on the inputs or parameters");
        pass.backward(loss);
        int index = 0;
        (add(all, concat("input ", index++), images, pass.gradient(x)), ...);
      }(pass.watch(images)...);
    }
    for_each_parameter(module, [&](const std::string& name, Parameter& parameter) {
      if (!parameter.requires_grad) return;
      const std::span<double> values = parameter.value<double>().span();
      std::vector<double> gradient(values.size());
      if (parameter.has_grad()) std::copy_n(parameter.grad<double>().data(), values.size(), gradient.begin());
      all.push_back({name, parameter.shape(), values.data(), std::move(gradient)});
    });

    const auto value = [&] {
      for (auto& [buffer, before] : buffers) *buffer = detail::clone(before);
      Train pass = pass_of();
      return detail::as_loss(f(pass, pass.watch(images)...), options_.seed).item();
    };
    return compare(all, value);
  }

  template <int C>
  static void add(std::vector<Checked>& all, std::string name, Image<C, double>& image,
                  const Image<C, double>& gradient) {
    all.push_back({std::move(name), image.shape(), image.data(), {gradient.span().begin(), gradient.span().end()}});
  }

  GradientCheckReport compare(std::vector<Checked>& all, const auto& value) const {
    GradientCheckReport report;
    report.tolerance = options_.tolerance;
    const double rounding_floor = 1e-4 * std::max(1.0, std::abs(value()));
    for (std::size_t t = 0; t < all.size(); ++t) {
      Checked& tensor = all[t];
      const auto size = std::int64_t(tensor.gradient.size());
      double largest = 0;
      for (const double g : tensor.gradient) largest = std::max(largest, std::abs(g));
      const bool everything = options_.samples == 0 || size <= options_.samples;
      Rng rng(options_.seed, 0xFFFFFFFFu, std::uint32_t(t + 1));
      for (std::int64_t i = 0; i < (everything ? size : options_.samples); ++i) {
        const std::int64_t at = everything ? i : std::int64_t(rng.below(std::uint32_t(size)));
        const double gradient = tensor.gradient[std::size_t(at)];
        double error = std::numeric_limits<double>::infinity(), quotient = 0;
        for (const double shrink : {1.0, 0.1}) {  // a kink within the first step may lie outside the second
          const double slope = difference_quotient(tensor.value[at], options_.step * shrink, value);
          const double scale = std::max({std::abs(gradient), std::abs(slope), 1e-3 * largest, rounding_floor});
          const double e = std::abs(gradient - slope) / scale;
          if (e < error) error = e, quotient = slope;
          if (error <= options_.tolerance) break;
        }
        if (report.checked++ == 0 || error > report.largest_error) {
          report.largest_error = error;
          report.where = tensor.name + detail::index_text(tensor.shape, at);
          report.gradient = gradient;
          report.difference_quotient = quotient;
        }
      }
    }
    return report;
  }

  static double difference_quotient(double& x, double step, const auto& value) {
    const double before = x, h = step * std::max(1.0, std::abs(before));
    x = before + h;
    const double up = x, above = value();
    x = before - h;
    const double down = x, below = value();
    x = before;
    return (above - below) / (up - down);
  }

  GradientCheckOptions options_;
};

/// GradientCheck with its default options: gradient_check(f, images...) or gradient_check(net, loss, images...).
template <class F, class... Arguments>
GradientCheckReport gradient_check(const F& f, const Arguments&... arguments) {
  return GradientCheck{}(f, arguments...);
}

}}  // namespace strata::STRATA_ABI
