// Training steps that are recorded and replayed: the bits of the same calls, and what cannot be recorded.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/compare.hpp"
#include "device/training.hpp"
#include "strata/networks/nafnet.hpp"
#include "strata/train/recorded_step.hpp"

using namespace strata_test;

namespace {

const st::Device cuda = st::Device::cuda();

template <class Net>
std::vector<float> weights(Net& net) {
  std::vector<float> all;
  st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    if (leaf.any_value().index() != 0) return;
    const st::Tensor<> here = leaf.template value<float>().to(st::Device::cpu());
    all.insert(all.end(), here.span().begin(), here.span().end());
  });
  return all;
}

/// The learning rate of step i: it rises and falls.
double rate(double lr, int i) { return lr * (1 + 0.1 * (i % 7)) / (1 + 0.05 * i); }

const auto loss_of = [](auto& net) {
  return [&net](auto& pass, const auto& noisy, const auto& clean) { return mean(square(net(pass, noisy) - clean)); };
};
st::Image<1> noisy_of(int i, std::int64_t n = 2) { return random_image<1>(n, 5, 4, std::uint32_t(2 * i)); }
st::Image<1> clean_of(int i, std::int64_t n = 2) { return random_image<1>(n, 5, 4, std::uint32_t(2 * i + 1)); }

/// `steps` steps by calls, as a program would write them, and by RecordedStep: the same loss and weights after each.
template <class Optimizer, class Net = SmallNet, class Options>
void compare_with_calls(int steps, const Options& options, double clip = 0) {
  Net called;
  st::initialize(called, 2);
  st::to(called, cuda);
  Net recorded = called;
  Optimizer called_optimizer(called, options), recorded_optimizer(recorded, options);
  st::RecordedStep step(recorded, recorded_optimizer, {.clip_grad_norm = clip}, loss_of(recorded));
  int different = 0;
  for (int i = 0; i < steps; ++i) {
    called_optimizer.set_lr(rate(options.lr, i));
    recorded_optimizer.set_lr(rate(options.lr, i));
    st::Train pass;
    const auto loss = loss_of(called)(pass, noisy_of(i).to(cuda), clean_of(i).to(cuda));
    called_optimizer.zero_grad();
    pass.backward(loss);
    if (clip > 0) st::clip_grad_norm_(called, clip);
    called_optimizer.step();
    const auto replayed = step(noisy_of(i), clean_of(i));
    CHECK(replayed.item() == loss.item());
    if (i % 4 == 3 || i < 4) different += weights(recorded) != weights(called);
  }
  CHECK(different == 0);
  CHECK(weights(recorded) == weights(called));
  CHECK(step.replays() == steps - 2);
  check_networks(recorded, called, 0);  // gradients too
}

}  // namespace

TEST_CASE("cuda: a recorded step has the bits of its calls, with a learning rate that changes") {
  compare_with_calls<st::SGD>(20, st::SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
  compare_with_calls<st::Adam>(20, st::AdamOptions{.lr = 1e-3});
  compare_with_calls<st::AdamW>(5, st::AdamWOptions{.lr = 1e-3, .weight_decay = 0.1}, 0.02);
  compare_with_calls<st::RMSprop>(5, st::RMSpropOptions{.lr = 1e-3}, 100);
  compare_with_calls<st::SGD>(5, st::SGDOptions{.lr = 0.05});
}

TEST_CASE("cuda: a recorded step of a network with learned numbers and channels that are multiplied") {
  using Net = st::Sequential<st::Conv2d<1, 4>, st::networks::NAFBlock<4>, st::Conv2d<4, 1>>;
  compare_with_calls<st::Adam, Net>(6, st::AdamOptions{.lr = 1e-3});
}

TEST_CASE("cuda: a recorded step leaves others' memory alone, and may be mixed with calls") {
  SmallNet called;
  st::initialize(called, 3);
  st::to(called, cuda);
  SmallNet recorded = called;
  st::Adam called_adam(called, {.lr = 1e-3}), recorded_adam(recorded, {.lr = 1e-3});
  st::RecordedStep step(recorded, recorded_adam, loss_of(recorded));
  std::vector<st::Image<1>> others;
  // Batches of two samples, and now and then one of a single sample; from step 8 on of three.
  const auto samples = [](int i) { return i >= 8 ? 3 : i == 4 || i == 6 ? 1 : 2; };
  const std::int64_t replays[] = {0, 0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6};  // after each step; 10 moves the network
  for (int i = 0; i < 12; ++i) {
    others.push_back(random_image<1>(2, 5, 4, std::uint32_t(1000 + i)).to(cuda));
    st::Train pass;
    const auto loss = loss_of(called)(pass, noisy_of(i, samples(i)).to(cuda), clean_of(i, samples(i)).to(cuda));
    called_adam.zero_grad();
    pass.backward(loss);
    called_adam.step();
    if (i == 10) {  // the network is moved away and back: what was recorded is of no use any more
      st::to(recorded, st::Device::cpu());
      others.push_back(random_image<1>(2, 5, 4, 2000).to(cuda));
      st::to(recorded, cuda);
    }
    CHECK(
        step(st::LoadedBatch<st::Image<1>, st::Image<1>>{{noisy_of(i, samples(i)), clean_of(i, samples(i))}}).item() ==
        loss.item());
    CHECK(weights(recorded) == weights(called));
    CHECK(step.replays() == replays[i]);
  }
  int changed = 0;
  for (int i = 0; i < 12; ++i) {
    const st::Image<1> now = others[std::size_t(i < 11 ? i : i + 1)].to(st::Device::cpu()),
                       wanted = random_image<1>(2, 5, 4, std::uint32_t(1000 + i));
    for (std::int64_t k = 0; k < now.size(); ++k) changed += now.data()[k] != wanted.data()[k];
  }
  CHECK(changed == 0);
}

TEST_CASE("cuda: a recorded step whose loss is no number changes no weight, and its reader is told") {
  SmallNet net;
  st::initialize(net, 2);
  st::to(net, cuda);
  st::SGD sgd(net, {.lr = 0.05, .momentum = 0.9});
  std::vector<float> before;
  const auto remember = [&] {
    before.clear();
    st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
      const st::Tensor<> here = p.value().to(st::Device::cpu());
      before.insert(before.end(), here.span().begin(), here.span().end());
    });
    return before;
  };
  st::Image<1> broken = clean_of(0);
  broken.data()[3] = std::nanf("");
  SUBCASE("in a replay, read or not") {
    st::RecordedStep step(net, sgd, {.check_every = 8}, loss_of(net));
    for (int i = 0; i < 4; ++i) (void)step(noisy_of(i), clean_of(i));
    const std::vector<float> good = remember();
    const auto loss = step(noisy_of(0), broken);  // the fifth
    CHECK(remember() == good);
    CHECK_THROWS_WITH_AS((void)loss.item(),
                         doctest::Contains("RecordedStep: the loss is nan; the step changed no weight"),
                         st::NumericError);
    CHECK(std::isfinite(step(noisy_of(1), clean_of(1)).item()));
    CHECK(remember() != good);
    (void)step(noisy_of(0), broken);
    CHECK_THROWS_AS((void)step(noisy_of(0), broken), st::NumericError);  // the eighth looks by itself
  }
  SUBCASE("by calls") {
    st::RecordedStep step(net, sgd, loss_of(net));
    const std::vector<float> good = remember();
    CHECK_THROWS_AS((void)step(noisy_of(0), broken), st::NumericError);
    CHECK(remember() == good);
  }
  SUBCASE("the gradients' norm") {
    st::RecordedStep step(net, sgd, {.clip_grad_norm = 1}, [&](auto& pass, const auto& x, const auto& factor) {
      return mean(square(net(pass, x) * factor)) * 0;  // gradients of 0 * infinity
    });
    const st::Image<1> one = random_image<1>(2, 5, 4, 1);
    for (int i = 0; i < 3; ++i) (void)step(one, one);
    const std::vector<float> good = remember();
    st::Image<1> large = random_image<1>(2, 5, 4, 1);
    for (float& x : large.span()) x = 3e19f;  // its square is infinite
    const auto loss = step(one, large);
    CHECK(remember() == good);
    CHECK_THROWS_AS((void)loss.item(), st::NumericError);
  }
}

TEST_CASE("cuda: half precision recorded, with the loss scaled by itself") {
  SmallNet called;
  st::initialize(called, 2);
  st::to(called, cuda);
  SmallNet recorded = called;
  st::Adam called_adam(called, {.lr = 1e-3}), recorded_adam(recorded, {.lr = 1e-3});
  st::GradScaler called_scaler({.init_scale = 0x1p26, .growth_interval = 2}),
      recorded_scaler({.init_scale = 0x1p26, .growth_interval = 2});
  st::RecordedStep step(recorded, recorded_adam,
                        {.precision = st::Precision::fp16, .clip_grad_norm = 0.5, .scaler = &recorded_scaler},
                        loss_of(recorded));
  // The first steps overflow, and later one whose target is large.
  int done = 0, left_out_first = 0, left_out = 0;
  bool was_large = false;
  for (int i = 0; i < 16; ++i) {
    st::Image<1> target = clean_of(i);
    if (done == 4 && !was_large) {
      was_large = true;
      for (float& x : target.span()) x *= 0x1p20f;
    }
    st::Train pass({.precision = st::Precision::fp16});
    const auto loss = loss_of(called)(pass, noisy_of(i).to(cuda), target.to(cuda));
    called_adam.zero_grad();
    pass.backward(called_scaler.scale(loss));
    if (called_scaler.unscale_(called_adam)) st::clip_grad_norm_(called, 0.5);
    ++(called_scaler.step(called_adam) ? done : done == 0 ? left_out_first : left_out);
    called_scaler.update();
    CHECK(step(noisy_of(i), target).item() == loss.item());
    CHECK(weights(recorded) == weights(called));
    CHECK(recorded_scaler.scale() == called_scaler.scale());
  }
  CHECK(left_out_first > 0);
  CHECK(left_out > 0);  // the large one, and where the scale grew too far
  CHECK(step.replays() == 16 - left_out_first - 2);
}

TEST_CASE("cuda: a classifier's step, recorded") {
  st::Sequential<st::Conv2d<1, 3>, st::BatchNorm2d<3>, st::ReLU, st::GlobalAvgPool2d> called;
  st::to(called, cuda);
  auto recorded = called;
  st::SGD called_sgd(called, {.lr = 0.1}), recorded_sgd(recorded, {.lr = 0.1});
  const st::CrossEntropyLoss loss({.label_smoothing = 0.1});
  st::RecordedStep step(recorded, recorded_sgd, [&](auto& pass, const auto& x, const auto& labels) {
    const auto y = st::as_var(recorded(pass, x));
    return loss(y, labels) + 0.1f * mean(square(y));
  });
  for (int i = 0; i < 5; ++i) {
    st::Tensor<st::Label> labels(st::Shape{2});
    labels.data()[0] = i % 3, labels.data()[1] = 2 - i % 2;
    st::Train pass;
    const auto y = st::as_var(called(pass, noisy_of(i).to(cuda)));
    const auto wanted = loss(y, labels.to(cuda)) + 0.1f * mean(square(y));
    called_sgd.zero_grad();
    pass.backward(wanted);
    called_sgd.step();
    CHECK(step(noisy_of(i), labels).item() == wanted.item());
  }
  CHECK(weights(recorded) == weights(called));
  CHECK(step.replays() == 3);
}

TEST_CASE("cuda: what cannot be recorded says so") {
  SmallNet net;
  st::initialize(net, 2);
  st::to(net, cuda);
  st::SGD sgd(net, {.lr = 0.05});
  const std::vector<float> before = weights(net);
  const auto run = [&](auto&& forward) {
    st::RecordedStep step(net, sgd, forward);
    for (int i = 0; i < 3; ++i) (void)step(noisy_of(i), clean_of(i));
  };
  CHECK_THROWS_WITH_AS(run([&](auto& pass, const auto& x, const auto& y) {
                         const auto loss = mean(square(net(pass, x) - y));
                         return loss.item() > 1000 ? 2 * loss : loss;
                       }),
                       doctest::Contains("RecordedStep: this step cannot be recorded, make it by calls"), st::Error);
  st::Dropout dropout;
  CHECK_THROWS_WITH_AS(
      run([&](auto& pass, const auto& x, const auto& y) { return mean(square(dropout(pass, net(pass, x)) - y)); }),
      doctest::Contains("Dropout draws random numbers"), st::Error);
  run(loss_of(net));  // no recording is left open

  // Updates of other tensors than were recorded are no new numbers for them.
  st::Accelerator& gpu = st::accelerator(cuda);
  st::Tensor<> a(st::Shape{5}, gpu.pool()), b(st::Shape{5}, gpu.pool());
  st::fill(a, 1.0f), st::fill(b, 1.0f);
  const st::TensorSpan of_a{5, a.data()}, of_b{5, b.data()};
  CHECK_THROWS_AS(gpu.update_where_finite(a.data()), st::Error);
  gpu.begin_recording();
  gpu.rescale({&of_a, 1}, 2);
  const auto work = gpu.end_recording();
  CHECK_THROWS_AS(work->renew([&] { gpu.rescale({&of_b, 1}, 3); }), st::Error);
  CHECK_THROWS_AS(work->renew([&] { gpu.scale({&of_a, 1}, 3); }), st::Error);
  CHECK_THROWS_AS(work->renew([&] { gpu.clamp({&of_a, 1}, 3); }), st::Error);
  CHECK_THROWS_AS(work->renew([] {}), st::Error);
  work->replay();
  work->renew([&] { gpu.rescale({&of_a, 1}, 3); });
  work->replay();
  gpu.scale({&of_b, 1}, 6);
  CHECK(a.to(st::Device::cpu()).data()[4] == 6);
  CHECK(b.to(st::Device::cpu()).data()[4] == 6);
}

TEST_CASE("a recorded step on the CPU is made by calls, random numbers and all") {
  using Net = st::Sequential<st::Conv2d<1, 4>, st::Dropout, st::Conv2d<4, 1>>;
  Net called;
  st::initialize(called, 2);
  Net recorded = called;
  st::Adam called_adam(called, {.lr = 1e-3}), recorded_adam(recorded, {.lr = 1e-3});
  st::RecordedStep step(recorded, recorded_adam, {.seed = 3, .step = 7, .clip_grad_norm = 0.5},
                        [&](auto& pass, const auto& x, const auto& y) { return mean(square(recorded(pass, x) - y)); });
  for (int i = 0; i < 4; ++i) {
    st::Train pass({.seed = 3, .step = 7 + i});
    const auto loss = mean(square(called(pass, noisy_of(i)) - clean_of(i)));
    called_adam.zero_grad();
    pass.backward(loss);
    st::clip_grad_norm_(called, 0.5);
    called_adam.step();
    CHECK(step(noisy_of(i), clean_of(i)).item() == loss.item());
    CHECK(weights(recorded) == weights(called));
  }
  CHECK(step.replays() == 0);
  st::Image<1> broken = clean_of(0);
  broken.data()[0] = std::nanf("");
  CHECK_THROWS_AS((void)step(noisy_of(0), broken), st::NumericError);
}
