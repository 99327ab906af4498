// Passes: what may go back and how often, watched inputs, joined channels, operations with gradients of their own.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <thread>
#include <tuple>
#include <vector>

#include "autograd/random_image.hpp"
#include "strata/autograd/custom_op.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/autograd/random_like.hpp"
#include "strata/nn/conv2d.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

/// Multiplies by a parameter: the smallest module, to see what happens to gradients.
struct Scale {
  using io = st::keeps;
  st::Parameter factor{st::Shape{}, 3.0f};
  static constexpr void visit(auto& self, auto&& f) { f("factor", self.factor); }

  template <int C, class T>
  st::Var<C, T> operator()(st::Train& pass, const st::Var<C, T>& x) {
    st::Image<C, T> image(x.n(), x.h(), x.w());
    const T k = factor.value<T>().data()[0];
    for (std::int64_t i = 0; i < x.size(); ++i) image.data()[i] = k * x.data()[i];
    auto y = pass.output(std::move(image));
    pass.tape()->record(y.id(), [this, k, x, id = y.id()](st::Tape& tape) {
      const T* gy = tape.gradient<T>(id);
      if (factor.requires_grad) {
        const auto target = factor.grad_target<T>();
        T total = 0;
        for (std::int64_t i = 0; i < x.size(); ++i) total += gy[i] * x.data()[i];
        *target.data = (target.accumulate ? *target.data : T(0)) + total;
      }
      if (const auto gx = tape.target<T>(x.id()))
        for (std::int64_t i = 0; i < x.size(); ++i) gx.data[i] = (gx.accumulate ? gx.data[i] : T(0)) + k * gy[i];
    });
    return y;
  }
};

const st::Image<1> ones = st::Image<1>::full(1, 2, 2, 1.0f);

}  // namespace

TEST_CASE("backward adds to the gradients until they are forgotten") {
  Scale scale;
  const auto step = [&](float weight) {
    st::Train pass;
    pass.backward(weight * sum(scale(pass, st::Var<1>(ones))));
  };
  CHECK_THROWS_WITH_AS(scale.factor.grad(), doctest::Contains("no backward pass has reached"), st::Error);
  step(1);
  CHECK(scale.factor.grad().data()[0] == 4.0f);
  step(0.5f);
  CHECK(scale.factor.grad().data()[0] == 6.0f);
  st::zero_grad(scale);
  CHECK_FALSE(scale.factor.has_grad());
  step(2);
  CHECK(scale.factor.grad().data()[0] == 8.0f);
}

TEST_CASE("a parameter used twice in a pass gets the sum") {
  Scale scale;
  st::Train pass;
  const auto x = pass.watch(ones);
  pass.backward(sum(scale(pass, scale(pass, x)) + x));  // (k^2 + 1) x
  CHECK(scale.factor.grad().data()[0] == 2 * 3.0f * 4);
  CHECK(pass.gradient(x).data()[3] == 10.0f);
}

TEST_CASE("a frozen parameter gets no gradient and lets it through") {
  Scale scale;
  scale.factor.requires_grad = false;
  st::Train pass;
  const auto x = pass.watch(ones);
  pass.backward(sum(scale(pass, x)));
  CHECK_FALSE(scale.factor.has_grad());
  CHECK(pass.gradient(x).data()[0] == 3.0f);

  st::Conv2d<1, 2> conv;  // either of two
  for (const bool weight : {false, true}) {
    st::zero_grad(conv);
    conv.weight.requires_grad = weight, conv.bias.requires_grad = !weight;
    for (int round = 0; round < 2; ++round) {
      st::Train again;
      again.backward(sum(conv(again, ones)));
    }
    CHECK(conv.weight.has_grad() == weight);
    CHECK(conv.bias.has_grad() != weight);
    if (weight)
      CHECK(conv.weight.grad().data()[4] == 2 * 4.0f);  // the middle tap sees all four pixels, in two passes
    else
      CHECK(conv.bias.grad().data()[1] == 2 * 4.0f);
  }
}

TEST_CASE("a pass goes back once") {
  Scale scale;
  st::Train pass;
  const auto y = scale(pass, st::Var<1>(ones));
  const auto loss = sum(y);
  pass.backward(loss);
  CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("make a new pass for each step"), st::Error);
  CHECK(scale.factor.grad().data()[0] == 4.0f);
  // What was computed before can no longer get a gradient; that would be silently nothing.
  CHECK_THROWS_WITH_AS(pass.backward(sum(square(y))), doctest::Contains("before the last backward"), st::Error);
  // New computations in the same pass may go back.
  pass.backward(sum(scale(pass, st::Var<1>(ones))));
  CHECK(scale.factor.grad().data()[0] == 8.0f);
}

TEST_CASE("values of another pass are an error") {
  Scale scale;
  st::Conv2d<1, 1> conv;
  const char* const text = "gradients do not flow from pass to pass";
  st::Train first, second;
  const auto y = scale(first, st::Var<1>(ones));
  const auto loss = sum(y);
  CHECK_THROWS_WITH_AS(second.backward(loss), doctest::Contains("not computed in this pass"), st::Error);
  CHECK_THROWS_WITH_AS(conv(second, y), doctest::Contains(text), st::Error);
  CHECK_THROWS_WITH_AS(st::cat(second, y, ones), doctest::Contains(text), st::Error);
  CHECK_THROWS_WITH_AS(y + scale(second, st::Var<1>(ones)), doctest::Contains(text), st::Error);
  CHECK_THROWS_WITH_AS(loss + sum(scale(second, st::Var<1>(ones))), doctest::Contains(text), st::Error);
  const auto identity = [](const auto& x) { return x; };
  CHECK_THROWS_WITH_AS(st::custom_op(second, identity, [](const auto& gy, const auto&, const auto&) { return gy; }, y),
                       doctest::Contains(text), st::Error);
  st::Infer infer;
  CHECK_THROWS_WITH_AS(conv(infer, y), doctest::Contains(text), st::Error);
  CHECK_NOTHROW(conv(infer, y.value()));
  CHECK_NOTHROW(conv(second, y.value()));
}

TEST_CASE("values of an earlier pass are an error although its memory is used again") {
  Scale scale;
  std::optional<st::Var<1>> old;
  std::optional<st::Scalar<>> old_loss;
  {
    st::Train pass;
    old = scale(pass, st::Var<1>(ones));
    old_loss = sum(*old);
  }
  st::Train pass;
  const auto y = scale(pass, st::Var<1>(ones));
  CHECK(y.tape() == old->tape());  // the tape is the same, the numbers on it are not
  st::Conv2d<1, 1> conv;
  CHECK_THROWS_AS(conv(pass, *old), st::Error);
  CHECK_THROWS_AS(pass.backward(*old_loss), st::Error);
  CHECK_THROWS_AS(pass.backward(sum(y * *old)), st::Error);
}

TEST_CASE("only finite losses of a Train pass go back") {
  Scale scale;
  {
    st::Train pass;
    pass.backward(sum(scale(pass, st::Var<1>(ones))));
  }
  const float before = scale.factor.grad().data()[0];
  for (const float wrong : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    st::Train pass;
    const auto loss = wrong * sum(scale(pass, st::Var<1>(ones)));
    CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("no gradient was changed"), st::NumericError);
    CHECK(scale.factor.grad().data()[0] == before);
  }
  st::Train pass;
  CHECK_THROWS_AS(pass.backward(sum(ones)), st::Error);  // does not depend on the network
  CHECK_THROWS_AS(pass.backward(st::Scalar<>()), st::Error);
}

TEST_CASE("gradients of inputs") {
  st::Train pass;
  const auto x = pass.watch(ones), unused = pass.watch(ones);
  const st::Var<1> y = 2 * x;
  pass.backward(sum(y * x));
  CHECK(pass.gradient(x).data()[0] == 4.0f);
  CHECK(pass.gradient(unused).data()[0] == 0.0f);
  CHECK_THROWS_WITH_AS(pass.gradient(y), doctest::Contains("pass.watch"), st::Error);
  CHECK_THROWS_AS(pass.gradient(st::Var<1>(ones)), st::Error);
  st::Train other;
  CHECK_THROWS_AS(other.gradient(x), st::Error);
}

TEST_CASE("cat joins channels and takes gradients apart") {
  const auto a = random_image<1>(2, 3, 4, 1);
  const auto b = random_image<2>(2, 3, 4, 2);
  const auto c = random_image<3>(2, 3, 4, 3);
  st::Infer infer;
  const auto y = st::cat(infer, a, b, c);
  static_assert(decltype(y)::channels == 6);
  for (std::int64_t i = 0; i < 24; ++i) {
    CHECK(y.data()[6 * i] == a.data()[i]);
    CHECK(y.data()[6 * i + 2] == b.data()[2 * i + 1]);
    CHECK(y.data()[6 * i + 3] == c.data()[3 * i]);
  }
  const auto report = st::gradient_check(
      [](auto& pass, const auto& p, const auto& q) { return square(st::cat(pass, p, q * q, p)); }, a, b);
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK_THROWS_WITH_AS(st::cat(infer, a, random_image<1>(2, 3, 5, 1)), doctest::Contains("2x1x3x4 and 2x1x3x5"),
                       st::ShapeError);
}

TEST_CASE("narrow and chunk take channels out and put their gradients back") {
  const auto x = random_image<6>(2, 3, 4, 1);
  st::Infer infer;
  const auto y = st::narrow<1, 3>(infer, x);
  static_assert(decltype(y)::channels == 3);
  const auto [first, second] = st::chunk<2>(infer, x);
  for (std::int64_t i = 0; i < 24; ++i)
    for (std::int64_t c = 0; c < 3; ++c) {
      CHECK(y.data()[3 * i + c] == x.data()[6 * i + 1 + c]);
      CHECK(first.data()[3 * i + c] == x.data()[6 * i + c]);
      CHECK(second.data()[3 * i + c] == x.data()[6 * i + 3 + c]);
    }
  const auto report = st::gradient_check(
      [](auto& pass, const auto& p) {
        const auto parts = st::chunk<3>(pass, p);  // overlapping readers, and a channel that nobody reads
        return parts[0] * square(parts[2]) + st::narrow<1, 2>(pass, p) * 2.0;
      },
      x);
  CHECK_MESSAGE(report.ok(), report.str());
}

TEST_CASE("custom_op: gradients for each input, checked shapes") {
  const auto multiply = [](const auto& a, const auto& b) {
    auto y = a.clone();
    for (std::int64_t i = 0; i < y.size(); ++i) y.data()[i] *= b.data()[i];
    return y;
  };
  const auto report = st::gradient_check(
      [&](auto& pass, const auto& p, const auto& q) {
        const auto y = st::custom_op(pass, multiply, [&](const auto& gy, const auto&, const auto& a, const auto& b) {
          return std::tuple(multiply(gy, b), multiply(gy, a));
        }, p, q);
        return y + p;
      },
      random_image<2>(1, 3, 4, 1), random_image<2>(1, 3, 4, 2));
  CHECK_MESSAGE(report.ok(), report.str());

  Scale scale;
  st::Train pass;
  const auto x = scale(pass, st::Var<1>(ones));
  const auto y = st::custom_op(
      pass, [](const st::Image<1>& image) { return image; },
      [](const auto&, const auto&, const auto&) { return st::Image<1>::full(1, 1, 2, 0.0f); }, x);
  CHECK_THROWS_WITH_AS(pass.backward(sum(y)),
                       doctest::Contains("gradient of shape 1x1x1x2 for an input of shape 1x1x2x2"), st::ShapeError);
  CHECK_FALSE(scale.factor.has_grad());
  pass.backward(sum(scale(pass, st::Var<1>(ones))));  // the pass drops what failed
  CHECK(scale.factor.grad().data()[0] == 4.0f);
}

TEST_CASE("a step that keeps too much by value is an error") {
  struct Big {
    char bytes[70000];
  };
  st::Train pass;
  const auto y = pass.output(ones.clone());
  CHECK_THROWS_WITH_AS(pass.tape()->record(y.id(), [big = Big{}](st::Tape&) { (void)big; }),
                       doctest::Contains("64 KiB"), st::Error);
}

TEST_CASE("random numbers of a pass are named by its step") {
  st::Train a({.seed = 1, .step = 5}), b({.seed = 1, .step = 5}), other({.seed = 1, .step = 6}), none;
  st::Rng first = a.next_rng("test"), second = a.next_rng("test");
  const std::uint32_t word = first.bits();
  CHECK(word != second.bits());
  CHECK(word == b.next_rng("test").bits());
  CHECK(word != other.next_rng("test").bits());
  CHECK_THROWS_WITH_AS(none.next_rng("Dropout"), doctest::Contains("Dropout draws random numbers"), st::ValueError);
}

TEST_CASE("random numbers in a forward are named by the pass, in inference too, and are normal and uniform") {
  const auto x = st::Image<3>::full(2, 53, 71, 0.0f);
  const auto draw = [&]<class P>(P&& pass) {
    const auto first = st::randn_like(pass, x), second = st::randn_like(pass, x);
    CHECK(first.shape() == x.shape());
    CHECK(first.id() < 0);  // a constant
    CHECK_FALSE(std::equal(first.data(), first.data() + first.size(), second.data()));
    return first.value();
  };
  const int before = st::num_threads();
  const st::Image<3> one = draw(st::Train({.seed = 1, .step = 5})), other = draw(st::Train({.seed = 1, .step = 6}));
  const auto same = [&](const st::Image<3>& a) { return std::equal(a.data(), a.data() + a.size(), one.data()); };
  CHECK_FALSE(same(other));
  for (const int threads : {1, 2, 3}) {
    st::set_num_threads(threads);
    CHECK(same(draw(st::Train({.seed = 1, .step = 5}))));
    CHECK(same(draw(st::Infer({.seed = 1, .step = 5}))));
  }
  st::set_num_threads(before);
  st::Infer infer({.step = 1});
  const st::Image<3> uniform = st::rand_like(infer, x).value();
  const auto of_doubles = st::randn_like(infer, st::Image<3, double>(2, 5, 3));
  CHECK(of_doubles.size() == 90);
  double sum = 0, squares = 0, fourth = 0, uniform_sum = 0;
  for (std::int64_t i = 0; i < x.size(); ++i) {
    const double v = double(one.data()[i]), u = double(uniform.data()[i]);
    sum += v, squares += v * v, fourth += v * v * v * v, uniform_sum += u;
    CHECK((u >= 0 && u < 1));
  }
  const double n = double(x.size()), root = std::sqrt(n);  // four standard deviations
  CHECK(std::abs(sum / n) < 4 / root);
  CHECK(std::abs(squares / n - 1) < 4 * std::sqrt(2.0) / root);
  CHECK(std::abs(fourth / n - 3) < 4 * std::sqrt(96.0) / root);
  CHECK(std::abs(uniform_sum / n - 0.5) < 4 * std::sqrt(1.0 / 12) / root);

  // The reparameterisation of a VAE, whose gradient goes by the numbers that are drawn.
  const auto report = st::gradient_check(
      [](auto& pass, const auto& mean, const auto& log_variance) {
        const auto noise = st::randn_like(pass, mean);
        return mean + exp(0.5 * log_variance) * noise;
      },
      random_image<2>(1, 3, 2, 1), random_image<2>(1, 3, 2, 2));
  CHECK_MESSAGE(report.ok(), report.str());
  st::Infer none;
  CHECK_THROWS_WITH_AS((void)st::randn_like(none, x),
                       doctest::Contains("randn_like draws random numbers, and this pass does not say which: make it "
                                         "with the step's number, as in st::Infer pass({.seed = 1, .step = step})"),
                       st::ValueError);
}

TEST_CASE("expand_as repeats a pixel and adds up its gradient") {
  const auto s = random_image<2>(3, 1, 1, 1);
  const auto x = random_image<2>(3, 4, 5, 2);
  st::Infer infer;
  const auto y = st::expand_as(infer, s, x);
  CHECK(y.shape() == x.shape());
  for (std::int64_t i = 0; i < y.size(); ++i) CHECK(y.data()[i] == s.data()[i / 40 * 2 + i % 2]);
  const auto report = st::gradient_check(
      [](auto& pass, const auto& p, const auto& q) { return square(q * st::expand_as(pass, p * p, q)); }, s, x);
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK_THROWS_WITH_AS(st::expand_as(infer, x, x), doctest::Contains("3x2x4x5"), st::ShapeError);
}

TEST_CASE("what a pass has read must not change before it goes back") {
  const char* const parameter = "has changed since the forward pass read it";
  const auto x = random_image<1>(2, 6, 5, 1);
  struct Change {
    const char* what;
    void (*change)(st::Conv2d<1, 2>&);
  };
  const Change changes[] = {
      {"data", [](auto& net) { net.weight.value().data()[3] += 1; }},
      {"span", [](auto& net) { for (float& v : net.weight.value().span()) v = 0; }},
      {"fill", [](auto& net) { net.weight.value().fill(1); }},
      {"of the bias", [](auto& net) { net.bias.value().fill(1); }},
      {"initialize", [](auto& net) { st::initialize(net, 3); }},
      {"reset", [](auto& net) { net.weight.reset(); }},
      {"copied from a network", [](auto& net) { net = st::Conv2d<1, 2>(); }},
      {"a parameter assigned", [](auto& net) { net.weight = st::Parameter(net.weight.shape(), 2.0f); }},
      {"a tensor assigned", [](auto& net) { net.weight.value() = net.weight.value().clone(); }},
      {"converted", [](auto& net) { st::to<double>(net), st::to<float>(net); }},
  };
  for (const Change& change : changes) {
    CAPTURE(change.what);
    st::Conv2d<1, 2> net;
    st::Train pass;
    const auto loss = sum(square(net(pass, x)));
    change.change(net);
    CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains(parameter), st::Error);
    CHECK_THROWS_AS(pass.backward(loss), st::Error);  // used up
    st::Train again;
    CHECK_NOTHROW(again.backward(sum(square(net(again, x)))));
  }

  // Images: the input, the target of a loss, what a layer gave, and another handle on one of them.
  for (const int which : {0, 1, 2, 3}) {
    CAPTURE(which);
    st::Conv2d<1, 2> net;
    st::Image<1> in = x.clone();
    st::Image<2> target = random_image<2>(2, 6, 5, 2);
    st::Train pass;
    const auto y = net(pass, in);
    const auto loss = mean(square(y - target));
    st::Image<2> handle = y.value();
    if (which == 0) in(0, 0, 1, 1) = 7;
    if (which == 1) target.data()[4] = 7;
    if (which == 2) handle.span()[1] = 7;
    if (which == 3) st::Image<1>(in).tensor().fill(7);
    CHECK_THROWS_WITH_AS(pass.backward(loss),
                         doctest::Contains("have changed in place since the forward pass read them"), st::Error);
  }
}

TEST_CASE("to look at numbers is not to change them, and what no gradient depends on may change") {
  st::Conv2d<1, 2> net, same = net;
  st::Image<1> x = random_image<1>(2, 6, 5, 1);
  st::Image<2> offset = random_image<2>(2, 6, 5, 2), unused = offset.clone();
  st::Train pass, plain;
  const st::Var<2> moved = net(pass, x) + offset;  // a sum does not need its terms again
  const auto dropped = square(unused + net(pass, x));
  const auto loss = sum(square(moved));
  CHECK(x.data()[3] == std::as_const(x).data()[3]);
  CHECK(net.weight.value().data()[0] == same.weight.value().data()[0]);
  net.weight.value().data()[0] += 1;
  net.weight.value().data()[0] = same.weight.value().data()[0];  // as it was
  offset.tensor().fill(0);
  unused.tensor().fill(0);  // nothing that goes back reads it
  CHECK(dropped.shape() == offset.shape());
  pass.backward(loss);
  plain.backward(sum(square(same(plain, x) + random_image<2>(2, 6, 5, 2))));
  for (std::int64_t i = 0; i < net.weight.size(); ++i)
    CHECK(net.weight.grad().data()[i] == same.weight.grad().data()[i]);
}

TEST_CASE("two passes over one network: the change between them is the first one's error") {
  st::Conv2d<1, 2> net;
  const auto x = random_image<1>(1, 5, 5, 1);
  st::Train first;
  const auto old_loss = sum(square(net(first, x)));
  net.weight.value().data()[0] += 1;
  st::Train second;  // reads what is there now
  CHECK_NOTHROW(second.backward(sum(square(net(second, x)))));
  CHECK_THROWS_WITH_AS(first.backward(old_loss), doctest::Contains("has changed since"), st::Error);
}

TEST_CASE("a network that is moved or destroyed before its pass goes back is an error") {
  const auto x = random_image<1>(1, 5, 5, 1);
  using Net = st::Conv2d<1, 2>;
  {
    auto net = std::make_unique<Net>();
    st::Train pass;
    const auto loss = sum(square((*net)(pass, x)));
    const Net moved = std::move(*net);
    CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("was moved"), st::Error);
  }
  {
    auto net = std::make_unique<Net>();
    st::Train pass;
    const auto loss = sum(square((*net)(pass, x)));
    net.reset();
    CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("was destroyed"), st::Error);
  }
  {
    std::vector<Net> nets(1);
    st::Train pass;
    const auto loss = sum(square(nets[0](pass, x)));
    nets.resize(9);
    CHECK_THROWS_WITH_AS(pass.backward(loss), doctest::Contains("between the forward pass that used it and backward()"),
                         st::Error);
    st::Train second;
    const auto other = sum(square(nets[0](second, x)));
    std::swap(nets[0], nets[1]);
    CHECK_THROWS_WITH_AS(second.backward(other), doctest::Contains("was moved"), st::Error);
    st::Train third;
    CHECK_NOTHROW(third.backward(sum(square(nets[1](third, x)))));  // who has moved may go on
  }
}

TEST_CASE("values and passes that have ended") {
  Scale scale;
  std::optional<st::Var<1>> old;
  std::optional<st::Scalar<>> loss;
  std::thread([&] {  // and so has their thread
    st::Train pass;
    old = scale(pass, st::Var<1>(ones));
    loss = sum(*old);
  }).join();
  CHECK(loss->item() == 12.0f);
  CHECK_THROWS_WITH_AS(st::Var<1>(2 * *old), doctest::Contains("training pass has ended"), st::Error);
  CHECK_THROWS_WITH_AS(*loss * 2, doctest::Contains("training pass has ended"), st::Error);

  st::Train first;
  st::Train second = std::move(first);
  CHECK_THROWS_WITH_AS(scale(first, st::Var<1>(ones)), doctest::Contains("moved from"), st::Error);
  CHECK_NOTHROW(second.backward(sum(scale(second, st::Var<1>(ones)))));
}
