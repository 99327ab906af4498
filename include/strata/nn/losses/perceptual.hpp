// Losses that look at images through a network: what a frozen classifier makes of the prediction and of the target is
// compared (Johnson, Alahi and Fei-Fei, 2016), and LPIPS, where people's judgement has weighted it (Zhang et al.,
// 2018). The network is yours, with weights you bring, a torchvision or lpips file for example.
//
//     Vgg19 vgg;                                                 // a Sequential of Conv2d, ReLU and MaxPool2d
//     st::load_weights("vgg19.pth", vgg, {.rename = {{"features", ""}}});
//     const st::Features<Vgg19, 3, 8, 17> features(vgg);         // the results of layers 3, 8 and 17
//     const st::PerceptualLoss perceptual(
//         features, {.weights = {0.1, 0.1, 1}, .mean = st::imagenet_mean, .std = st::imagenet_std});
//     auto loss = l1(y, clean) + 0.1 * perceptual(pass, y, clean);
//
//     st::LPIPS<st::Features<Vgg16, 3, 8, 15, 22, 29>, 64, 128, 256, 512, 512> lpips{st::Features<...>(vgg16)};
//     st::load_weights("vgg.pth", lpips.weights);                         // lin0.model.1.weight and so on
//     auto distance = lpips(pass, y, clean);
//
// The loss keeps a copy of the network, frozen, batch norms too: gradients flow to the prediction alone. A network of
// your own that is no Sequential has a member features(pass, x) that gives a std::tuple of images, and stands where
// Features does.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "strata/nn/fuse.hpp"
#include "strata/nn/losses/host_loss.hpp"
#include "strata/nn/module.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI {

/// What torchvision's classifiers were trained with, of images in [0, 1].
inline const std::vector<double> imagenet_mean{0.485, 0.456, 0.406}, imagenet_std{0.229, 0.224, 0.225};

namespace detail {

/// scale[c] * x + shift[c], on the host.
template <Pass P, int C, class T>
Var<C, T> scale_channels(P& pass, const Var<C, T>& x, const std::vector<double>& scale,
                         const std::vector<double>& shift) {
  check_host_loss("the scaling of a perceptual loss", x);
  Image<C, T> image(x.n(), x.h(), x.w());
  const std::int64_t pixels = x.size() / C;
  const auto each = [pixels](auto&& f) {
    parallel_ranges(pixels, 4096, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        for (int c = 0; c < C; ++c) f(i * C + c, std::size_t(c));
    });
  };
  T* const to = image.data();
  each([&](std::int64_t i, std::size_t c) { to[i] = T(scale[c] * double(x.data()[i]) + shift[c]); });
  if (x.id() < 0) return Var<C, T>(std::move(image));
  auto y = pass.output(std::move(image));
  if constexpr (P::training)
    pass.tape()->record(y.id(), [x_id = x.id(), id = y.id(), each, scale](Tape& tape) {
      const T* dy = tape.gradient<T>(id);
      if (const auto dx = tape.target<T>(x_id))
        each([&](std::int64_t i, std::size_t c) {
          dx.data[i] = (dx.accumulate ? dx.data[i] : T(0)) + T(scale[c] * double(dy[i]));
        });
    });
  return y;
}

/// Nothing below a module is learned any more.
template <class M>
void freeze_all(M& module) {
  auto one = [](auto& leaf) {
    if constexpr (requires { leaf.requires_grad; }) leaf.requires_grad = false;
  };
  each_leaf(module, one);
  freeze_statistics(module);
}

template <std::size_t I, std::size_t... At, class P, class... Ms, class X, class... Done>
auto features_from(P& pass, Sequential<Ms...>& net, const X& x, std::tuple<Done...> done) {
  constexpr std::size_t size = sizeof...(Ms), cut = std::min({(At >= I ? At : size)...});
  if constexpr (cut == size) {
    return done;
  } else {
    constexpr FusedRun run = fused_runs<P::training, Ms...>[I];
    constexpr std::size_t step = I + run.length - 1 <= cut ? run.length : 1;
    const auto y = [&] {
      if constexpr (step == 1)
        return call(std::get<I>(net.layers), pass, x);
      else if constexpr (P::training)
        return [&]<std::size_t... K>(std::index_sequence<K...>) {
          return run_or_forget(
              pass, x, [&] { return fused_forward<I, run>(net.layers, pass, x); }, std::get<I + K>(net.layers)...);
        }(std::make_index_sequence<step>{});
      else
        return fused_forward<I, run>(net.layers, pass, x);
    }();
    if constexpr (I + step - 1 == cut)
      return features_from<I + step, At...>(pass, net, y, std::tuple_cat(std::move(done), std::tuple(y)));
    else
      return features_from<I + step, At...>(pass, net, y, std::move(done));
  }
}

template <std::size_t... At>
constexpr bool ascending() {
  constexpr std::array<std::size_t, sizeof...(At)> places{At...};
  for (std::size_t i = 1; i < places.size(); ++i)
    if (places[i] <= places[i - 1]) return false;
  return true;
}

}  // namespace detail

/// The results of some layers of a Sequential, by their numbers from 0, ascending: torchvision's "features.8" is 8.
template <class Net, std::size_t... At>
struct Features {
  using io = typename Net::io;
  static constexpr std::size_t count = sizeof...(At);
  Net net;

  Features() = default;
  explicit Features(const Net& network) : net(network) {}
  static constexpr bool has_state = true;
  static constexpr void visit(auto& self, auto&& f) { f("", self.net); }
  template <Pass P, detail::variable_operand X>
  auto features(P& pass, const X& x) {
    return detail::features_from<0, At...>(pass, net, detail::var_in<P>(x), std::tuple<>());
  }

  static_assert(sizeof...(At) > 0 && detail::ascending<At...>() && ((At < Net::size) && ...),
                "strata::Features<Net, At...>: wants numbers of the network's layers, from 0, one after another");
};

enum class FeatureDistance { l1, l2 };

struct PerceptualOptions {
  std::vector<double> weights = {};                ///< of the layers; empty: 1 each
  FeatureDistance distance = FeatureDistance::l1;  ///< the mean of |a - b|, or of its square
  std::vector<double> mean = {},
                      std = {};  ///< of each channel: the network sees (x - mean) / std. Empty: x. On the CPU
};

/// The sum over layers of weight * distance between what the network makes of the prediction and of the target.
template <class Extractor>
class PerceptualLoss {
 public:
  /// Throws ValueError for other numbers of weights and channels than there are.
  explicit PerceptualLoss(const Extractor& extractor, PerceptualOptions options = {})
      : extractor_(extractor), options_(std::move(options)) {
    detail::freeze_all(extractor_);
    if (options_.mean.size() != options_.std.size())
      throw ValueError(concat("PerceptualLoss: mean has ", options_.mean.size(), " numbers and std ",
                              options_.std.size(), ": give both or none"));
    for (std::size_t c = 0; c < options_.std.size(); ++c) {
      if (!(options_.std[c] > 0))
        throw ValueError(concat("PerceptualLoss: a std is ", options_.std[c], ", wanted more than 0"));
      scale_.push_back(1 / options_.std[c]);
      shift_.push_back(-options_.mean[c] / options_.std[c]);
    }
  }

  template <Pass P, detail::variable_operand X, detail::variable_operand Y>
  auto operator()(P& pass, const X& prediction, const Y& target) const {
    static_assert(X::channels == Y::channels,
                  "strata::PerceptualLoss: prediction and target must have the same number of channels");
    const auto constant = detail::constant_target("PerceptualLoss", target);
    using T = typename X::value_type;
    const auto wanted = look(pass, as_var(constant));
    const auto got = look(pass, detail::var_in<P>(prediction));
    constexpr std::size_t count = std::tuple_size_v<decltype(got)>;
    if (!options_.weights.empty() && options_.weights.size() != count)
      throw ValueError(concat("PerceptualLoss: ", options_.weights.size(), " weights for ", count, " layers"));
    Scalar<T> total(T(0));
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((total = total + (options_.weights.empty() ? 1.0 : options_.weights[I]) *
                            distance(std::get<I>(got), std::get<I>(wanted))),
       ...);
    }(std::make_index_sequence<count>{});
    return total;
  }

  const Extractor& extractor() const& { return extractor_; }

 private:
  template <class P, int C, class T>
  auto look(P& pass, const Var<C, T>& x) const {
    if (scale_.empty()) return extractor_.features(pass, x);
    if (scale_.size() != std::size_t(C))
      throw ValueError(concat("PerceptualLoss: mean has ", scale_.size(), " numbers for ", C, " channels"));
    return extractor_.features(pass, detail::scale_channels(pass, x, scale_, shift_));
  }
  template <int C, class T>
  Scalar<T> distance(const Var<C, T>& a, const Var<C, T>& b) const {
    return options_.distance == FeatureDistance::l1 ? mean(abs(a - b)) : mean(square(a - b));
  }

  mutable Extractor extractor_;  // a training pass runs it, and changes nothing of it
  PerceptualOptions options_;
  std::vector<double> scale_, shift_;
};

/// LPIPS's learned weights, called as in its files: lin0.model.1.weight, of shape (1, C, 1, 1), and so on. All 1 at
/// first.
template <int... Channels>
struct LPIPSWeights {
  std::array<Parameter, sizeof...(Channels)> lin{Parameter(Shape{1, Channels, 1, 1}, 1.0f)...};
  static constexpr bool has_state = true;
  static constexpr void visit(auto& self, auto&& f) {
    for (std::size_t i = 0; i < sizeof...(Channels); ++i) {
      const std::string name = "lin" + std::to_string(i) + ".model.1.weight";
      f(std::string_view(name), self.lin[i]);
    }
  }
};

struct LPIPSOptions {
  double low = 0, high = 1;  ///< the images' range, which becomes the [-1, 1] that lpips takes
};

/// The mean over images of the sum over layers of the mean over pixels of sum_c w_c (a_c - b_c)^2, a and b the features
/// of both images, each pixel's divided by its length: lpips.LPIPS(lpips=True). `Channels` are those of the layers. On
/// the CPU.
template <class Extractor, int... Channels>
class LPIPS {
 public:
  LPIPSWeights<Channels...> weights;

  explicit LPIPS(const Extractor& extractor, LPIPSOptions options = {}) : extractor_(extractor) {
    if (!(options.high > options.low))
      throw ValueError(concat("LPIPS: the range is ", options.low, " to ", options.high));
    detail::freeze_all(extractor_);
    constexpr std::array<double, 3> mean{-0.030, -0.088, -0.188}, std{0.458, 0.448, 0.450};  // lpips's ScalingLayer
    const double factor = 2 / (options.high - options.low);
    for (std::size_t c = 0; c < 3; ++c) {
      scale_.push_back(factor / std[c]);
      shift_.push_back((-1 - factor * options.low - mean[c]) / std[c]);
    }
  }

  template <Pass P, detail::variable_operand X, detail::variable_operand Y>
  auto operator()(P& pass, const X& prediction, const Y& target) const {
    static_assert(X::channels == 3 && Y::channels == 3, "strata::LPIPS: wants images of three channels");
    using T = typename X::value_type;
    const auto constant = as_var(detail::constant_target("LPIPS", target));
    const auto wanted = extractor_.features(pass, detail::scale_channels(pass, constant, scale_, shift_));
    const auto got =
        extractor_.features(pass, detail::scale_channels(pass, detail::var_in<P>(prediction), scale_, shift_));
    Scalar<T> total(T(0));
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      ((total = total + layer(std::get<I>(got), std::get<I>(wanted), weights.lin[I])), ...);
    }(std::make_index_sequence<sizeof...(Channels)>{});
    return total;
  }

 private:
  static constexpr double epsilon = 1e-10;

  template <int C, class T>
  static double length(const T* f) {
    double sum = 0;
    for (int c = 0; c < C; ++c) sum += double(f[c]) * double(f[c]);
    return std::sqrt(sum);
  }

  template <int C, class T>
  static Scalar<T> layer(const Var<C, T>& x, const Var<C, T>& y, const Parameter& lin) {
    detail::check_host_loss("LPIPS", x);
    detail::check_same_shape("LPIPS", x.shape(), y.shape());
    if (lin.size() != C) throw ShapeError(concat("LPIPS: a layer has ", C, " channels, its weights ", lin.size()));
    std::vector<double> w(std::size_t{C});
    std::visit([&](const auto& tensor) { std::copy(tensor.span().begin(), tensor.span().end(), w.begin()); },
               lin.any_value());
    const std::int64_t pixels = x.h() * x.w(), rows = x.n() * x.h();
    const double scale = 1 / double(x.n() * pixels);
    const double value = scale * detail::sum_of_terms(rows, [&](std::int64_t row) {
                           double sum = 0;
                           for (std::int64_t i = row * x.w(); i < (row + 1) * x.w(); ++i) {
                             const T *a = x.data() + i * C, *b = y.data() + i * C;
                             const double of_a = length<C>(a) + epsilon, of_b = length<C>(b) + epsilon;
                             for (int c = 0; c < C; ++c) {
                               const double d = double(a[c]) / of_a - double(b[c]) / of_b;
                               sum += w[std::size_t(c)] * d * d;
                             }
                           }
                           return sum;
                         });
    return detail::host_loss(
        x, value,
        [x, y, w, scale, all = x.n() * pixels](double g, const auto& dx) {
          parallel_ranges(all, 64, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t i = begin; i < end; ++i) {
              const T *a = x.data() + i * C, *b = y.data() + i * C;
              const double of_a = length<C>(a), below = of_a + epsilon, of_b = length<C>(b) + epsilon;
              const auto slope = [&](int c) {
                return 2 * g * scale * w[std::size_t(c)] * (double(a[c]) / below - double(b[c]) / of_b);
              };
              double along = 0;  // what the length's change does
              for (int c = 0; c < C; ++c) along += slope(c) * double(a[c]);
              for (int c = 0; c < C; ++c) {
                T& to = dx.data[i * C + c];
                const double gradient =
                    slope(c) / below - (of_a > 0 ? along * double(a[c]) / (below * below * of_a) : 0.0);
                to = (dx.accumulate ? to : T(0)) + T(gradient);
              }
            }
          });
        },
        y);
  }

  mutable Extractor extractor_;
  std::vector<double> scale_, shift_;
};

}  // namespace strata::inline STRATA_ABI
