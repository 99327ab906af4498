// Layers whose weights are made of others, and losses that look through windows and networks: against PyTorch
// (tests/golden/learning.py), and their gradients by differences.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "autograd/random_image.hpp"
#include "golden/learning_golden.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/data/data_loader.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/flatten.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/losses/perceptual.hpp"
#include "strata/nn/losses/similarity.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/spectral_norm.hpp"
#include "strata/optim/sgd.hpp"
#include "test_data.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// A tensor's numbers set to f(i), i counted in PyTorch's order.
template <class T, class F>
void set(st::Tensor<T>& tensor, F f) {
  std::vector<T> numbers;
  for (std::int64_t i = 0; i < tensor.size(); ++i) numbers.push_back(T(f(double(i))));
  st::from_nchw(tensor, std::span<const T>(numbers));
}
template <class T>
void append(std::vector<double>& numbers, const st::Tensor<T>& tensor) {
  for (const T x : st::to_nchw(tensor)) numbers.push_back(double(x));
}

template <class T>
constexpr double tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-5;

template <class T, std::size_t N>
void compare(const std::vector<double>& got, const double (&wanted)[N]) {
  REQUIRE(got.size() == N);
  double largest = 0;
  for (const double x : wanted) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < N; ++i) {
    CAPTURE(i);
    CHECK(std::abs(got[i] - wanted[i]) <= tolerance<T> * largest);
  }
}

/// Two passes, as learning.py makes them.
template <class T, class Layer, int C, std::size_t N>
void check_layer(st::Image<C, T> x, const double (&wanted)[N]) {
  Layer layer;
  st::to<T>(layer);
  set(x.tensor(), [](double i) { return std::cos(i); });
  if constexpr (requires { layer.weight_orig; }) {
    set(layer.weight_orig.template value<T>(), [](double i) { return std::sin(i + 1); });
    for (st::Buffer* buffer : {&layer.weight_u, &layer.weight_v}) {
      auto& numbers = buffer->value<T>();
      numbers.fill(T(1 / std::sqrt(double(numbers.size()))));
    }
  } else {
    set(layer.weight_v.template value<T>(), [](double i) { return std::sin(i + 1); });
    const auto& v = layer.weight_v.template value<T>();
    const std::int64_t row = v.size() / v.shape()[0];
    for (std::int64_t r = 0; r < v.shape()[0]; ++r) {
      double sum = 0;
      for (std::int64_t i = r * row; i < (r + 1) * row; ++i)
        sum += double(std::as_const(v).data()[i]) * double(std::as_const(v).data()[i]);
      layer.weight_g.template value<T>().data()[r] = T(std::sqrt(sum));
    }
  }
  set(layer.body.bias.template value<T>(), [](double i) { return 0.1 * i; });
  std::vector<double> numbers;
  for (int i = 0; i < 2; ++i) {
    numbers.clear();
    st::zero_grad(layer);
    st::Train pass;
    const auto y = layer(pass, x);
    append(numbers, y.value().tensor());
    pass.backward(sum(square(y)));
  }
  append(numbers, layer.body.bias.template grad<T>());
  if constexpr (requires { layer.weight_orig; }) {
    append(numbers, layer.weight_orig.template grad<T>());
    append(numbers, layer.weight_u.template value<T>());
  } else {
    append(numbers, layer.weight_g.template grad<T>());
    append(numbers, layer.weight_v.template grad<T>());
  }
  compare<T>(numbers, wanted);
}

template <class T>
void check_layers() {
  const st::Image<2, T> image(1, 3, 4);
  const st::Image<4, T> vector(2, 1, 1);
  check_layer<T, st::SpectralNorm<st::Conv2d<2, 3>>>(image, golden::spectral_conv);
  check_layer<T, st::SpectralNorm<st::ConvTranspose2d<2, 3, 4>>>(image, golden::spectral_transposed);
  check_layer<T, st::SpectralNorm<st::Linear<4, 3>>>(vector, golden::spectral_linear);
  check_layer<T, st::WeightNorm<st::Conv2d<2, 3>>>(image, golden::weight_conv);
  check_layer<T, st::WeightNorm<st::ConvTranspose2d<2, 3, 4>>>(image, golden::weight_transposed);
  check_layer<T, st::WeightNorm<st::Linear<4, 3>>>(vector, golden::weight_linear);
}

template <template <class> class Norm>
using Net = st::Sequential<Norm<st::Conv2d<3, 8>>, st::ReLU, Norm<st::Conv2d<8, 8, 3, st::no_bias>>, st::BatchNorm2d<8>,
                           Norm<st::Conv2d<8, 2, 1>>>;
template <class M>
using Spectral = st::SpectralNorm<M>;
template <class M>
using Length = st::WeightNorm<M>;

}  // namespace

TEST_CASE("spectral_norm and weight_norm are torch's") {
  check_layers<double>();
  check_layers<float>();
}

TEST_CASE("names, gradients and folding of layers whose weights are made of others") {
  std::vector<std::string> names;
  Net<Spectral> spectral;
  Net<Length> length;
  st::for_each_tensor(spectral, [&](const std::string& name, auto&) { names.push_back(name); });
  CHECK(std::vector<std::string>(names.begin(), names.begin() + 5) ==
        std::vector<std::string>{"0.bias", "0.weight_orig", "0.weight_u", "0.weight_v", "2.weight_orig"});
  names.clear();
  st::for_each_tensor(length, [&](const std::string& name, auto&) { names.push_back(name); });
  CHECK(std::vector<std::string>(names.begin(), names.begin() + 4) ==
        std::vector<std::string>{"0.bias", "0.weight_g", "0.weight_v", "2.weight_g"});
  CHECK(st::receptive_field<Net<Spectral>> == 5);
  CHECK(st::parameter_count<Net<Length>> == 3 * 8 * 9 + 8 + 8 + 8 * 8 * 9 + 8 + 16 + 16 + 2 + 2);

  const auto x = random_image<3, float>(2, 7, 6, 1);
  const auto check = [&](auto& net) {
    st::initialize(net, 3);
    const auto rest = [&](const auto& image) {  // the power method comes to rest
      for (int i = 0; i < 400; ++i) {
        st::Train pass;
        net(pass, image);
      }
    };
    rest(x);
    const auto folded = st::fold(net);
    st::Infer infer;
    const st::Image<2> wanted = net(infer, x), got = folded(infer, x);
    for (std::int64_t i = 0; i < wanted.size(); ++i)
      CHECK(std::abs(wanted.data()[i] - got.data()[i]) <= 1e-5f * (1 + std::abs(wanted.data()[i])));
    st::to<double>(net);
    const auto image = random_image<3>(2, 5, 4, 7);
    rest(random_image<3, double>(2, 5, 4, 7));  // where it came to in float is off by float's rounding
    const auto report = st::gradient_check(net, image);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  check(spectral);
  check(length);
}

namespace {

template <template <class> class Norm>
using Parametrized = st::Sequential<Norm<st::Conv2d<2, 3>>, st::ReLU,
                                    Norm<st::ConvTranspose2d<3, 4, 4, st::ConvTranspose2dOptions{.bias = false}>>,
                                    st::Flatten<4, 6, 8>, Norm<st::Linear<192, 5>>>;

template <class T, template <class> class Norm>
void check_parametrized(const std::string& which) {
  CAPTURE(which);
  const auto path = strata_test::golden("golden/pytorch/parametrizations.pth");
  const st::WeightsFile file(path);
  const st::TensorInfo* info = file.find("expected." + which);
  REQUIRE(info != nullptr);
  const st::Tensor<T> wanted = file.read<T>(*info);
  for (const st::Match match : {st::Match::by_name, st::Match::by_order}) {
    Parametrized<Norm> net;
    st::to<T>(net);
    const st::LoadReport report = st::load_weights(path, net, {.match = match, .prefix = which + "."});
    REQUIRE(report.notes.size() == 1);
    CHECK(report.notes[0].find("names of parametrizations are read as") != std::string::npos);
    st::Image<2, T> x(1, 3, 4);
    for (std::int64_t i = 0; i < x.size(); ++i) x.data()[i] = T(std::cos(double(i)));
    st::Infer pass;
    const st::Var<5, T> y = std::as_const(net)(pass, x);
    for (std::int64_t i = 0; i < 5; ++i)
      CHECK(double(y.data()[i]) == doctest::Approx(double(wanted.data()[i])).epsilon(1e-5));
    if constexpr (std::is_same_v<T, float>) {
      const st::Var<5> deployed = st::fold(net)(pass, x);
      for (std::int64_t i = 0; i < 5; ++i)
        CHECK(double(deployed.data()[i]) == doctest::Approx(double(wanted.data()[i])).epsilon(1e-5));
    }
  }
}

}  // namespace

TEST_CASE("what torch.nn.utils.parametrizations writes goes into SpectralNorm and WeightNorm") {
  check_parametrized<float, Spectral>("spectral");
  check_parametrized<float, Length>("weight");
  check_parametrized<double, Spectral>("spectral");
  check_parametrized<double, Length>("weight");
  st::SpectralNorm<st::Conv2d<2, 3>> one;
  const auto path = strata_test::golden("golden/pytorch/parametrizations.pth");
  CHECK_THROWS_WITH_AS(st::load_weights(path, one, {.prefix = "spectral.2."}), doctest::Contains("different"),
                       st::FileError);
}

TEST_CASE("one layer with a spectral norm runs twice in a pass, and again on the way back, with the same bits") {
  const auto run = [](auto& net, bool frozen_first) {
    st::initialize(net, 3);
    if (frozen_first)
      st::for_each_parameter(
          net, [](const std::string& name, st::Parameter& p) { p.requires_grad = name != "0.weight_orig"; });
    const auto real = random_image<3, float>(2, 7, 6, 1), fake = random_image<3, float>(2, 7, 6, 2);
    std::vector<double> numbers;
    for (int step = 0; step < 2; ++step) {
      st::Train pass;
      st::zero_grad(net);
      const auto x = pass.watch(fake);
      const auto of_real = net(pass, real);
      const auto of_fake = net(pass, x);
      pass.backward(mean(square(of_real)) - mean(of_fake));
      append(numbers, pass.gradient(x).tensor());
      st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
        if (p.has_grad()) append(numbers, p.grad());
      });
    }
    return numbers;
  };
  Net<Spectral> kept;
  st::Checkpoint<Net<Spectral>> again;
  st::Checkpoint<st::Sequential<st::Checkpoint<Net<Spectral>>>> twice;
  for (const bool frozen : {false, true}) {
    const auto wanted = run(kept, frozen);
    CHECK(wanted == run(again, frozen));
    if (!frozen) CHECK(wanted == run(twice, frozen));
  }
}

namespace {

/// The pictures of learning.py.
template <int C, class T>
std::pair<st::Image<C, T>, st::Image<C, T>> pictures(std::int64_t n, std::int64_t h, std::int64_t w) {
  st::Image<C, double> raw(n, h, w), extra(n, h, w);
  set(raw.tensor(), [](double i) { return std::fmod(7919 * i, 1000) / 1000; });
  set(extra.tensor(), [](double i) { return std::fmod(31 * i, 17) / 85; });
  std::pair<st::Image<C, T>, st::Image<C, T>> made{st::Image<C, T>(n, h, w), st::Image<C, T>(n, h, w)};
  for (std::int64_t k = 0; k < n; ++k)
    for (int c = 0; c < C; ++c)
      for (std::int64_t y = 0; y < h; ++y)
        for (std::int64_t x = 0; x < w; ++x) {
          double sum = 0, count = 0;
          for (std::int64_t v = std::max<std::int64_t>(y - 1, 0); v <= std::min(y + 1, h - 1); ++v)
            for (std::int64_t u = std::max<std::int64_t>(x - 1, 0); u <= std::min(x + 1, w - 1); ++u)
              sum += raw(k, c, v, u), ++count;
          made.first(k, c, y, x) = T(sum / count);
          made.second(k, c, y, x) = T(0.8 * (sum / count) + extra(k, c, y, x));
        }
  return made;
}

template <class T, int C, std::size_t N>
void check_image_loss(const auto& loss, std::int64_t n, std::int64_t h, std::int64_t w, const double (&wanted)[N]) {
  const auto [a, b] = pictures<C, T>(n, h, w);
  st::Train pass;
  const auto x = pass.watch(a);
  const st::Scalar<T> value = loss(pass, x, b);
  pass.backward(value);
  const std::vector<T> gradient = st::to_nchw(pass.gradient(x).tensor());
  double sum = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) sum += double(gradient[i]) * std::cos(double(i));
  constexpr double error = std::is_same_v<T, double> ? 1e-11 : 2e-5;
  CHECK(std::abs(double(value.item()) - wanted[0]) <= error * std::abs(wanted[0]));
  double largest = 0;
  for (std::size_t i = 2; i < N; ++i) largest = std::max(largest, std::abs(wanted[i]));
  CHECK(std::abs(sum - wanted[1]) <= error * (std::abs(wanted[1]) + largest));
  for (std::size_t i = 2; i < N; ++i) CHECK(std::abs(double(gradient[(i - 2) * 41]) - wanted[i]) <= error * largest);
}

/// Features that are the images themselves.
struct Same {
  static constexpr void visit(auto&, auto&&) {}
  auto features(auto&, const auto& x) { return std::tuple(x); }
};

template <class T>
void check_image_losses() {
  check_image_loss<T, 2>([](auto&, const auto& x, const auto& y) { return st::SSIMLoss()(x, y); }, 2, 14, 13,
                         golden::ssim);
  check_image_loss<T, 2>([](auto&, const auto& x, const auto& y) { return st::MSSSIMLoss({.window = 3})(x, y); }, 1, 35,
                         37, golden::ms_ssim);
  st::LPIPS<Same, 3> lpips{Same()};
  for (int c = 0; c < 3; ++c) lpips.weights.lin[0].value().data()[c] = float(c + 1);
  check_image_loss<T, 3>([&](auto& pass, const auto& x, const auto& y) { return lpips(pass, x, y); }, 2, 5, 4,
                         golden::lpips);
}

using Vgg = st::Sequential<st::Conv2d<3, 4>, st::ReLU, st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::ReLU, st::MaxPool2d<2>,
                           st::Conv2d<4, 6>>;

}  // namespace

TEST_CASE("SSIM, MS-SSIM and LPIPS are PyTorch's") {
  check_image_losses<double>();
  check_image_losses<float>();
}

TEST_CASE("gradients of losses through windows and networks, by differences") {
  const auto a = random_image<2>(2, 13, 11, 1, 0, 1), b = random_image<2>(2, 13, 11, 2, 0, 1);
  const auto both = [&](const auto& loss, const auto& x, const auto& y) {
    const auto report = st::gradient_check([&](auto&, const auto& p, const auto& t) { return loss(p, t); }, x, y);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  both(st::SSIMLoss(), a, b);
  both(st::SSIMLoss({.peak = 2, .window = 1}), random_image<2>(1, 1, 1, 3), random_image<2>(1, 1, 1, 4));
  const auto smooth = pictures<1, double>(1, 34, 33);
  both(st::MSSSIMLoss({.window = 3}), smooth.first, smooth.second);

  Vgg vgg;
  st::initialize(vgg, 5);
  st::to<double>(vgg);
  const auto x = random_image<3, double>(2, 7, 6, 3, 0, 1), y = random_image<3, double>(2, 7, 6, 4, 0, 1);
  const auto through = [&](const auto& loss) {
    const auto report = st::gradient_check([&](auto& pass, const auto& p) { return loss(pass, p, y); }, x);
    CHECK_MESSAGE(report.ok(), report.str());
  };
  through(st::PerceptualLoss(st::Features<Vgg, 0, 3, 6>(vgg),
                             {.weights = {1, 0.5, 2}, .mean = st::imagenet_mean, .std = st::imagenet_std}));
  through(st::PerceptualLoss(st::Features<Vgg, 4>(vgg), {.distance = st::FeatureDistance::l2}));
  through(st::LPIPS<st::Features<Vgg, 1, 4, 6>, 4, 4, 6>(st::Features<Vgg, 1, 4, 6>(vgg)));
}

TEST_CASE("features are the layers' results, the network stays as it is, and the target costs nothing") {
  Vgg vgg;
  st::initialize(vgg, 5);
  st::Infer infer;
  const auto x = random_image<3, float>(1, 8, 8, 3, 0, 1), y = random_image<3, float>(1, 8, 8, 4, 0, 1);
  st::Features<Vgg, 1, 6> features(vgg);
  const auto [first, last] = features.features(infer, x);
  const st::Image<6> whole = vgg(infer, x);
  CHECK(std::equal(whole.span().begin(), whole.span().end(), last.value().span().begin()));
  CHECK(first.channels == 4);

  const st::PerceptualLoss loss(features);
  st::Train pass;
  const auto prediction = pass.watch(x);
  const auto value = loss(pass, prediction, y);
  auto copy = loss.extractor();
  CHECK(std::get<1>(copy.features(pass, y)).id() < 0);  // nothing is kept of the target
  CHECK(value.item() > 0);
  pass.backward(value);
  CHECK(pass.gradient(prediction).data()[7] != 0);
  st::for_each_tensor(loss.extractor(), [](const std::string& name, const auto& leaf) {
    CAPTURE(name);
    if constexpr (requires { leaf.requires_grad; }) {
      CHECK_FALSE(leaf.requires_grad);
      CHECK_FALSE(leaf.has_grad());
    }
  });
  CHECK(loss.extractor().net.layer<3>().running_mean.value().data()[0] == 0.0f);
  CHECK(vgg.layer<0>().weight.requires_grad);  // the loss has a copy
  CHECK(loss(infer, x, x).item() == 0);
  st::Train other;
  const auto watched = other.watch(x);
  CHECK_THROWS_WITH_AS(loss(other, x, watched), doctest::Contains("no gradient flows into its target"), st::Error);
}

TEST_CASE("what these losses refuse") {
  const auto small = st::Image<3>::full(1, 10, 20, 0.5f);
  CHECK_THROWS_WITH_AS(st::SSIMLoss()(small, small),
                       "SSIMLoss: images of 10 x 20 pixels are smaller than the window of 11", st::ShapeError);
  CHECK_THROWS_WITH_AS(st::MSSSIMLoss()(small, small), doctest::Contains("want more than 160"), st::ShapeError);
  CHECK_THROWS_AS(st::SSIMLoss({.window = 4}), st::ValueError);
  CHECK_THROWS_AS(st::SSIMLoss({.peak = 0}), st::ValueError);
  CHECK_THROWS_AS(st::SSIMLoss({.window = 3})(small, st::Image<3>::full(1, 20, 10, 0.5f)), st::ShapeError);
  CHECK_THROWS_AS(st::PerceptualLoss(st::Features<Vgg, 1>(), {.mean = {1}}), st::ValueError);
  st::Infer pass;
  CHECK_THROWS_AS(st::PerceptualLoss(st::Features<Vgg, 1>(), {.weights = {1, 2}})(pass, small, small), st::ValueError);
  CHECK(st::SSIMLoss()(st::Image<1>::full(1, 11, 11, 0.5f), st::Image<1>::full(1, 11, 11, 0.5f)).item() == 0.0f);
}

namespace {

/// Images whose mean and slope are to be found; and with more than one thing in a place.
struct Slopes {
  std::size_t size() const { return 8; }
  auto get(std::size_t index, st::Rng&) const {
    st::Image<1> image(1, 4, 4);
    for (std::int64_t i = 0; i < 16; ++i) image.data()[i] = 0.1f * float(index) + 0.05f * float(i % 4);
    return st::Pair{image, st::Vector<2>{{0.1f * float(index), 0.05f}}};
  }
};
struct Several {
  std::size_t size() const { return 4; }
  auto get(std::size_t index, st::Rng&) const {
    const auto image = st::Image<3>::full(1, 2, 3, float(index));
    const auto mask = st::Tensor<st::Label>::full(st::Shape{2, 3}, st::Label(index));
    return st::Pair{std::tuple{image, 0.5f * float(index)},
                    std::tuple{mask, st::Vector<3>{{1, 2, float(index)}}, st::Pair{image, 7}}};
  }
};

}  // namespace

TEST_CASE("vectors and several things go straight from a dataset into a loss") {
  using Regression = st::Sequential<st::Flatten<1, 4, 4>, st::Linear<16, 2>>;
  Regression net;
  st::SGD sgd(net, {.lr = 0.1});
  const st::DataLoader loader(Slopes(), {.batch_size = 4});
  const st::MSELoss mse;
  float first = 0, last = 0;
  for (int epoch = 0; epoch < 100; ++epoch)
    for (const auto& [image, wanted] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = mse(net(pass, image), wanted);
      sgd.zero_grad();
      pass.backward(loss);
      sgd.step();
      if (epoch == 0) first = loss.item();
      last = loss.item();
    }
  CHECK(last < 0.01f * first);

  const st::DataLoader several(Several(), {.batch_size = 2});
  for (const auto& [inputs, targets] : several.epoch(0)) {
    const auto& [image, number] = inputs;
    const auto& [mask, vector, pair] = targets;
    CHECK(image.shape() == st::Shape{2, 3, 2, 3});
    CHECK(number.shape() == st::Shape{2});
    CHECK(mask.shape() == st::Shape{2, 2, 3});
    CHECK(mask.data()[6] == mask.data()[0] + 1);
    CHECK(vector.shape() == st::Shape{2, 3, 1, 1});
    CHECK(vector(1, 2, 0, 0) == vector(0, 2, 0, 0) + 1);
    CHECK(pair.target.data()[1] == 7);
    CHECK(std::isfinite(st::CrossEntropyLoss({.ignore_index = 3})(
                            image, mask.data()[6] == 3 ? st::Tensor<st::Label>::full(mask.shape(), 1) : mask)
                            .item()));
  }
}
