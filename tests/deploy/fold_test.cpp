// The deploy form of a network: its type, and that it computes the same.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "largest.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace {

/// Weights and statistics that a trained network could have.
template <class Net>
void fill(Net& net, std::uint64_t seed) {
  st::initialize(net, seed);
  st::Rng rng(seed, 7, 7);
  st::for_each_tensor(net, [&](const std::string& name, auto& leaf) {
    if (name.ends_with("num_batches_tracked")) return;
    const bool variance = name.ends_with("running_var");
    if (leaf.shape().rank() >= 2) return;
    for (float& x : leaf.template value<float>().span())
      x = variance ? rng.uniform(0.2f, 3.0f) : x + 0.3f * rng.normal();
  });
}

template <int C>
st::Image<C> picture(std::int64_t n, std::int64_t h, std::int64_t w) {
  st::Image<C> image(n, h, w);
  st::Rng rng(5, 6, 7);
  for (float& x : image.span()) x = rng.uniform();
  return image;
}

/// The largest difference of the two over the largest magnitude.
template <class Net>
double distance(const Net& net, std::int64_t h = 19, std::int64_t w = 23) {
  const auto x = picture<Net::io::in>(2, h, w);
  const auto deployed = st::fold(net);
  st::Infer pass;
  const auto wanted = st::as_var(net(pass, x)).value(), got = st::as_var(deployed(pass, x)).value();
  REQUIRE(wanted.shape() == got.shape());
  double difference = 0, magnitude = 0;
  for (std::int64_t i = 0; i < wanted.size(); ++i) {
    strata_test::keep_largest(difference, std::abs(double(wanted.data()[i]) - double(got.data()[i])));
    magnitude = std::max(magnitude, std::abs(double(wanted.data()[i])));
  }
  return difference / magnitude;
}

template <int W>
using Block = st::Sequential<st::Conv2d<W, W, 3, st::no_bias>, st::BatchNorm2d<W>, st::ReLU>;
using DnCNN = st::Residual<
    st::Sequential<st::Conv2d<1, 16>, st::ReLU, st::Repeat<6, Block<16>>, st::Conv2d<16, 1, 3, st::no_bias>>>;

/// A module of a user, with and without a rule.
template <class Body>
struct Ruled {
  using io = typename Body::io;
  Body body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto operator()(st::Train& pass, const auto& x) { return x + body(pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const { return x + body(pass, x); }
  auto fold() const { return Ruled<st::deploy_t<Body>>{.body = st::fold(body)}; }
};
/// Modules that need no rule: their members' types are template arguments.
template <class Body>
struct Gated : st::Layer<Gated<Body>> {
  using io = typename Body::io;
  Body body;
  float scale = 0.5f;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) { return x * (self.scale * self.body(pass, x)); }
};
template <int Count, class Body>
struct Several {
  using io = typename Body::io;
  std::vector<Body> bodies = std::vector<Body>(std::size_t(Count));
  std::optional<Body> last;
  static constexpr void visit(auto& self, auto&& f) {
    f("bodies", self.bodies);
    f("last", self.last);
  }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    st::Var<io::in, typename std::remove_cvref_t<decltype(x)>::value_type> y = st::as_var(x);
    for (const auto& body : bodies) y = body(pass, y);
    return last.has_value() ? st::as_var((*last)(pass, y)) : y;
  }
};
struct Unruled {
  using io = st::maps<8, 8>;
  using keeps_its_form = void;
  Block<8> body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  auto operator()(st::Train& pass, const auto& x) { return x * body(pass, x); }
  auto operator()(st::Infer& pass, const auto& x) const { return x * body(pass, x); }
};

/// Nothing in it is to be folded away, and its members' types are its own.
struct Gate {
  using io = st::maps<8, 8>;
  st::Conv2d<8, 8> conv;
  st::Sequential<st::Conv2d<8, 8>, st::ReLU, st::Repeat<2, st::Add<st::Conv2d<8, 8, 3, st::no_bias>>>> body;
  std::vector<st::Conv2d<8, 1, 1>> masks = std::vector<st::Conv2d<8, 1, 1>>(2);
  static constexpr void visit(auto& self, auto&& f) {
    f("conv", self.conv);
    f("body", self.body);
    f("masks", self.masks);
  }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    const auto y = body(pass, conv(pass, x));
    const auto gate = masks[0](pass, y);
    return y * sigmoid(gate) + masks[1](pass, x);
  }
};
struct Outer {
  using io = st::maps<8, 8>;
  Gate gate;
  static constexpr void visit(auto& self, auto&& f) { f("gate", self.gate); }
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) const {
    return gate(pass, x) + x;
  }
};

constexpr st::Conv2dOptions strided{.stride = 2};
constexpr auto none = st::Activation::none, relu = st::Activation::relu;
template <int In, int Out, st::Activation Act, st::Conv2dOptions Options = st::Conv2dOptions{}>
using Folded = st::FoldedConv2d<In, Out, 3, Options, Act>;

}  // namespace

TEST_CASE("the deploy form of a type") {
  using Separable = st::Sequential<st::DepthwiseConv2d<4, 5, st::no_bias>, st::BatchNorm2d<4>, st::ReLU,
                                   st::DepthwiseConv2d<4, 3, st::no_bias>, st::Conv2d<4, 8, 1>, st::ReLU>;
  CHECK(
      std::is_same_v<st::deploy_t<Separable>, st::Sequential<st::FoldedDepthwiseConv2d<4, 5, st::Conv2dOptions{}, relu>,
                                                             st::FoldedDepthwiseConv2d<4, 3, st::no_bias, none>,
                                                             st::FoldedConv2d<4, 8, 1, st::Conv2dOptions{}, relu>>>);
  CHECK(
      std::is_same_v<st::deploy_t<st::DepthwiseConv2d<3>>, st::FoldedDepthwiseConv2d<3, 3, st::Conv2dOptions{}, none>>);
  CHECK(st::deploy_t<Separable>::size == 3);
  CHECK(st::FoldedDepthwiseConv2d<3, 3, st::no_bias, relu>::name() ==
        "FoldedDepthwiseConv2d(3, kernel_size=3, padding=1, groups=3, bias=False), relu");
  CHECK(std::is_same_v<st::deploy_t<st::Conv2d<1, 8>>, Folded<1, 8, none>>);
  CHECK(std::is_same_v<st::deploy_t<st::Conv2d<1, 8, 3, st::no_bias>>, Folded<1, 8, none, st::no_bias>>);
  CHECK(std::is_same_v<
        st::deploy_t<DnCNN>,
        st::Residual<st::Sequential<Folded<1, 16, relu>, st::Repeat<6, st::Sequential<Folded<16, 16, relu>>>,
                                    Folded<16, 1, none, st::no_bias>>>>);
  // nested lists are opened, so that neighbours across them join; Dropout is nowhere
  using Nested = st::Sequential<st::Sequential<st::Conv2d<1, 8>, st::Dropout>, st::Dropout,
                                st::Sequential<st::BatchNorm2d<8>, st::BatchNorm2d<8>>, st::ReLU, st::Dropout>;
  CHECK(std::is_same_v<st::deploy_t<Nested>, st::Sequential<Folded<1, 8, relu>>>);
  CHECK(std::is_same_v<st::deploy_t<st::Sequential<st::Dropout, st::Dropout>>, st::Identity>);
  CHECK(std::is_same_v<st::deploy_t<st::Repeat<3, st::Dropout>>, st::Identity>);
  using Again =
      st::Sequential<st::Checkpoint<st::Conv2d<1, 8>>, st::Checkpoint<st::Sequential<st::BatchNorm2d<8>, st::ReLU>>>;
  CHECK(std::is_same_v<st::deploy_t<Again>, st::Sequential<Folded<1, 8, relu>>>);
  CHECK(std::is_same_v<st::deploy_t<st::Residual<st::Checkpoint<Block<8>>>>,
                       st::Residual<st::Sequential<Folded<8, 8, relu>>>>);
  using Before = st::Sequential<st::BatchNorm2d<3>, st::ReLU, st::MaxPool2d<2>, st::Conv2d<3, 8>, st::LeakyReLU>;
  CHECK(std::is_same_v<st::deploy_t<Before>,
                       st::Sequential<st::ChannelScale<3, relu>, st::MaxPool2d<2>, Folded<3, 8, none>, st::LeakyReLU>>);
  CHECK(std::is_same_v<st::deploy_t<Unruled>, Unruled>);
  CHECK(std::is_same_v<st::deploy_t<st::Add<Block<8>, std::ratio<1, 10>>>,
                       st::Add<st::Sequential<Folded<8, 8, relu>>, std::ratio<1, 10>>>);
  CHECK(std::is_same_v<st::deploy_t<Gated<st::Subtract<Block<8>>>>,
                       Gated<st::Subtract<st::Sequential<Folded<8, 8, relu>>>>>);
  CHECK(std::is_same_v<st::deploy_t<Several<2, Block<8>>>, Several<2, st::Sequential<Folded<8, 8, relu>>>>);
  CHECK(std::is_same_v<st::deploy_t<Gated<st::PReLU<8>>>, Gated<st::PReLU<8>>>);
  CHECK(std::is_same_v<st::deploy_t<st::Repeat<2, Ruled<Block<8>>>>,
                       st::Repeat<2, Ruled<st::Sequential<Folded<8, 8, relu>>>>>);
  CHECK(st::receptive_field<st::deploy_t<DnCNN>> == st::receptive_field<DnCNN>);
  CHECK(st::multiply_adds<st::deploy_t<DnCNN>>(40, 40) == st::multiply_adds<DnCNN>(40, 40));
}

// The folded weights are rounded once and the sums of a convolution are those of float32: 1e-5 of the largest value is
// some thirty roundings of it.
TEST_CASE("a module of one's own with nothing to fold away stays as it is") {
  CHECK(std::is_same_v<st::deploy_t<Gate>, Gate>);
  CHECK(std::is_same_v<st::deploy_t<Outer>, Outer>);
  using Net = st::Sequential<st::Conv2d<1, 8>, st::BatchNorm2d<8>, Outer, st::Conv2d<8, 1>>;
  CHECK(std::is_same_v<st::deploy_t<Net>, st::Sequential<Folded<1, 8, none>, Outer, Folded<8, 1, none>>>);
  Net net;
  st::initialize(net, 4);
  const auto folded = st::fold(net);
  const auto x = st::Image<1>::full(1, 6, 5, 0.75f);
  st::Infer pass;
  const st::Image<1> wanted = std::as_const(net)(pass, x).value(), got = folded(pass, x).value();
  for (std::int64_t i = 0; i < got.size(); ++i) CHECK(got.data()[i] == doctest::Approx(wanted.data()[i]).epsilon(1e-5));
  const Outer outer, same = st::fold(outer);
  const auto y = st::Image<8>::full(1, 6, 5, 0.75f);
  const st::Image<8> a = st::as_var(outer(pass, y)).value(), b = st::as_var(same(pass, y)).value();
  CHECK(std::equal(a.data(), a.data() + a.size(), b.data()));
}

TEST_CASE("a folded network computes the same") {
  const auto check = []<class Net>(Net net) {
    fill(net, 3);
    CHECK(distance(net) < 1e-5);
  };
  check(DnCNN());
  check(st::Sequential<st::Conv2d<1, 8>, st::BatchNorm2d<8>, st::BatchNorm2d<8>, st::ReLU, st::Dropout,
                       st::Conv2d<8, 2>>());
  check(st::Sequential<st::BatchNorm2d<3>, st::ReLU, st::Conv2d<3, 8, 3, strided>, st::BatchNorm2d<8>, st::PReLU<8>>());
  check(st::Sequential<st::BatchNorm2d<3>, st::BatchNorm2d<3>, st::Conv2d<3, 16, 1>, st::BatchNorm2d<16>>());
  check(st::Sequential<st::Conv2d<1, 8>, Unruled, st::Repeat<2, Ruled<Block<8>>>, st::PixelShuffle<8, 2>>());
  check(st::Sequential<st::Conv2d<1, 4>, st::BatchNorm2d<4>, st::ReLU, st::GlobalAvgPool2d, st::Linear<4, 3>>());
  check(st::Sequential<st::PixelShuffle<8, 2>, st::Dropout>());
  check(st::Sequential<st::Add<Block<8>, std::ratio<1, 10>>, st::Subtract<Block<8>>>());
  Gated<Block<8>> gated;
  gated.scale = 0.25f;
  check(gated);
  CHECK(st::fold(gated).scale == 0.25f);
  Several<2, Block<8>> several;
  several.last.emplace();
  check(several);
  CHECK(st::fold(several).bodies.size() == 2);
  check(st::Sequential<st::Conv2d<1, 8>, st::Checkpoint<st::Repeat<2, Block<8>>>, st::Conv2d<8, 2>>());
  check(st::Sequential<st::DepthwiseConv2d<3, 5>, st::BatchNorm2d<3>, st::BatchNorm2d<3>, st::ReLU,
                       st::Conv2d<3, 17, 1>, st::BatchNorm2d<17>, st::DepthwiseConv2d<17, 3, strided>,
                       st::BatchNorm2d<17>, st::DepthwiseConv2d<17, 7, st::no_bias>, st::ReLU>());
}

TEST_CASE("the deploy form has files of its own, and cannot be trained by mistake") {
  DnCNN net;
  fill(net, 1);
  const auto deployed = st::fold(net);
  std::vector<std::string> names;
  st::for_each_tensor(deployed, [&](const std::string& name, auto&) { names.push_back(name); });
  CHECK(names.front() == "body.0.weight");
  CHECK(names.at(2) == "body.1.0.0.weight");
  CHECK(names.size() == 2 + 6 * 2 + 1);
  int parameters = 0;
  st::for_each_parameter(deployed, [&](const std::string&, auto&) { ++parameters; });
  CHECK(parameters == 0);
}
