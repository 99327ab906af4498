// Checkpoint<M> is M in every bit and by every name, and keeps M's input alone.
#include "strata/nn/checkpoint.hpp"

#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <vector>

#include "autograd/random_image.hpp"
#include "strata/autograd/custom_op.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/io/names.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/summary.hpp"
#include "strata/optim/adam.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

template <class M>
using As = M;

/// A module of one's own: a skip, and a value that is used twice.
template <class Body>
struct Skip {
  using io = st::maps<8, 8>;
  Body body;
  static constexpr void visit(auto& self, auto&& f) { f("body", self.body); }
  constexpr auto operator()(auto& pass, const auto& x) {
    const auto y = st::as_var(body(pass, x));
    return x + 0.5f * y * y;
  }
};

using Half =
    st::Sequential<st::Conv2d<8, 8, 3, st::no_bias>, st::BatchNorm2d<8>, st::ReLU, st::DropoutOf<std::ratio<1, 10>>>;

/// In W: what a batch norm has not computed yet (first, and behind), a skip from before to behind, one in another,
/// dropout.
template <template <class> class W>
using Net = st::Sequential<
    st::Conv2d<3, 8>, st::BatchNorm2d<8>, st::ReLU, W<Half>, Skip<W<st::Repeat<2, Half>>>, st::BatchNorm2d<8>,
    W<st::Sequential<st::BatchNorm2d<8>, st::Conv2d<8, 8>, W<Half>, st::Conv2d<8, 8>>>, st::BatchNorm2d<8>, st::ReLU,
    W<Skip<st::Sequential<st::Conv2d<8, 8>, W<st::Residual<st::Conv2d<8, 8>>>>>>, st::Dropout, W<st::Conv2d<8, 2>>>;
using Kept = Net<As>;
using Again = Net<st::Checkpoint>;

template <class Image>
void append(std::vector<double>& numbers, const Image& image) {
  for (const auto number : image.span()) numbers.push_back(double(number));
}

/// Everything that three steps of training give.
template <class N, class T>
std::vector<double> train(std::int64_t n, std::int64_t h, std::int64_t w) {
  N net;
  st::initialize(net, 7);
  st::to<T>(net);
  int leaf_number = 0;
  st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    if (++leaf_number == 9)
      if constexpr (requires { leaf.requires_grad; }) leaf.requires_grad = false;
  });
  st::Adam adam(net, {.lr = 1e-2});
  const auto x = random_image<3, T>(n, h, w, 1), target = random_image<3, T>(n, h, w, 2);
  std::vector<double> numbers;
  for (int step = 0; step < 3; ++step) {
    st::Train pass({.seed = 3, .step = step});
    const auto watched = pass.watch(x);
    const auto y = net(pass, watched);
    const auto loss = mean(square(y - st::narrow<0, 2>(pass, target)));
    append(numbers, y.value());
    adam.zero_grad();
    pass.backward(loss);
    append(numbers, pass.gradient(watched));
    st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
      if (p.has_grad()) append(numbers, p.grad<T>());
    });
    adam.step();
  }
  st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    std::visit([&](const auto& tensor) { append(numbers, tensor); }, std::as_const(leaf).any_value());
  });
  return numbers;
}

}  // namespace

TEST_CASE("values, gradients, weights and running statistics have the same bits with and without") {
  CHECK(train<Kept, float>(2, 9, 13) == train<Again, float>(2, 9, 13));
  CHECK(train<Kept, float>(2, 1, 1) == train<Again, float>(2, 1, 1));
  CHECK(train<Kept, float>(3, 24, 21) == train<Again, float>(3, 24, 21));
  CHECK(train<Kept, double>(2, 5, 6) == train<Again, double>(2, 5, 6));
  CHECK(train<Kept, float>(3, 24, 21).size() > 10000);
}

TEST_CASE("a gradient through it is the right one") {
  st::Sequential<st::Conv2d<2, 4>, st::Checkpoint<st::Sequential<st::Conv2d<4, 4>, st::BatchNorm2d<4>, st::Dropout>>>
      net;
  st::to<double>(net);
  const auto report = st::gradient_check(net, random_image<2>(2, 5, 4, 1));
  CHECK_MESSAGE(report.ok(), report.str());
}

TEST_CASE("names, table and facts are those of what it wraps") {
  const auto names = [](const auto& net, st::Names how) {
    std::vector<std::string> all;
    for (const auto& tensor : st::detail::tensors_of(net, "", how)) all.push_back(tensor.name);
    return all;
  };
  const Kept kept;
  const Again again;
  for (const st::Names how : {st::Names::nested, st::Names::spliced}) CHECK(names(kept, how) == names(again, how));
  CHECK(names(again, st::Names::nested)[7] == "3.0.weight");
  CHECK(st::summary(kept) == st::summary(again));
  CHECK(st::parameter_count<Kept> == st::parameter_count<Again>);
  CHECK(st::receptive_field<Kept> == st::receptive_field<Again>);
  static_assert(st::receptive_field<st::Checkpoint<st::Conv2d<1, 1>>> == 3);
}

TEST_CASE("it does no harm to what does nothing, and to what the loss does not need") {
  st::Checkpoint<st::Repeat<2, st::DropoutOf<std::ratio<0, 1>>>> none;
  st::Checkpoint<st::Sequential<st::Conv2d<2, 2>>> unused;
  const auto image = random_image<2, float>(1, 4, 4, 1);
  st::Train pass({.step = 0});
  const auto x = pass.watch(image);
  const auto y = none(pass, x);
  unused(pass, y);
  pass.backward(sum(3 * y));
  CHECK(pass.gradient(x).data()[5] == 3.0f);
  CHECK_FALSE(unused.body.layer<0>().weight.has_grad());
}

TEST_CASE("parameters that change before it goes back are an error") {
  st::Checkpoint<st::Sequential<st::Conv2d<2, 2>, st::ReLU>> net;
  const auto image = random_image<2, float>(1, 4, 4, 1);
  st::Train pass;
  const auto loss = mean(net(pass, image));
  net.body.layer<0>().weight.value().data()[3] = 5;
  CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("has changed since the forward pass read it"), st::Error);
}

namespace {

/// Reads an image of the pass that is not its input.
struct Leak {
  using io = st::maps<1, 1>;
  const st::Var<1>* other = nullptr;
  static constexpr void visit(auto&, auto&&) {}
  auto operator()(st::Train&, const st::Var<1>&) const { return *other; }
};

}  // namespace

TEST_CASE("an image from outside is an error and not a lost gradient") {
  st::Checkpoint<Leak> net;
  st::Train pass;
  const auto x = pass.watch(st::Image<1>::full(1, 2, 2, 1));
  net.body.other = &x;
  CHECK_THROWS_WITH_AS(net(pass, x), doctest::Contains("computed in another pass"), st::Error);
}
