// Whole training on a device: steps, clipping, averages, schedules of memory, weights and checkpoints.
#include <doctest/doctest.h>

#include <filesystem>

#include "device/compare.hpp"
#include "device/host_accelerator.hpp"
#include "device/training.hpp"
#include "temporary_folder.hpp"

using namespace strata_test;
using Net = SmallNet;

TEST_CASE("device: training equals the CPU's") {
  compare_training<st::SGD>(host_accelerator().device(),
                            st::SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
  compare_training<st::SGD>(host_accelerator().device(), st::SGDOptions{.lr = 0.05, .momentum = 0.9, .nesterov = true},
                            0.5);
  compare_training<st::SGD>(host_accelerator().device(), st::SGDOptions{.lr = 0.1});
  compare_training<st::Adam>(host_accelerator().device(), st::AdamOptions{.lr = 1e-3, .eps = 1e-4});
  compare_training<st::AdamW>(host_accelerator().device(), st::AdamWOptions{.lr = 1e-3, .eps = 1e-4});
  compare_training<st::RMSprop>(host_accelerator().device(), st::RMSpropOptions{.lr = 1e-2, .eps = 0.1});
  compare_training<st::RMSprop>(host_accelerator().device(),
                                st::RMSpropOptions{.lr = 5e-3, .eps = 0.1, .momentum = 0.5, .centered = true});
}

TEST_CASE("device: a network moved between steps takes its optimiser along") {
  const st::Device device = host_accelerator().device();
  Net here;
  st::initialize(here, 2);
  Net moved = here;
  st::SGD here_sgd(here, {.lr = 0.05, .momentum = 0.9}), moved_sgd(moved, {.lr = 0.05, .momentum = 0.9});
  st::ExponentialMovingAverage here_ema(here, {.decay = 0.5, .use_buffers = true}),
      moved_ema(moved, {.decay = 0.5, .use_buffers = true});
  for (std::uint32_t i = 0; i < 4; ++i) {
    st::to(moved, i % 2 == 1 ? device : st::Device::cpu());
    training_step(here, here_sgd, i);
    training_step(moved, moved_sgd, i);
    here_ema.update();
    moved_ema.update();
  }
  check_networks(moved, here, 1e-3);
  const auto a = here_ema.swap(), b = moved_ema.swap();
  st::for_each_tensor(moved, [&](const std::string&, auto& leaf) { CHECK(leaf.device() == device); });
  check_networks(moved, here, 1e-3);
}

TEST_CASE("device: a loss stays there until somebody asks, and so does arithmetic with it") {
  Net here;
  st::initialize(here, 2);
  Net there = here;
  st::to(there, host_accelerator().device());
  const st::Image<1> x = random_image<1>(2, 9, 8, 1), target = random_image<1>(2, 9, 8, 2);
  struct Losses {
    st::Scalar<> mean_square, sum;
  };
  const auto back = [&](Net& net) {
    const st::Device device = net.body.layer<0>().weight.device();
    st::Train pass;
    const st::Var<1> y = net(pass, x.to(device));
    const auto mean_square = mean(square(y - target.to(device)));
    const auto absolute = mean(abs(y));
    const auto sum = 3 * square(mean_square) - sqrt(absolute) / (1 + mean_square) + mean_square * mean_square;
    net.body.layer<0>().weight.zero_grad();
    pass.backward(sum);
    return Losses{mean_square, sum};
  };
  const Losses wanted = back(here);
  const int before = host_accelerator().downloads;
  const Losses given = back(there);
  CHECK(host_accelerator().downloads == before);
  CHECK(given.sum.item() == doctest::Approx(wanted.sum.item()).epsilon(1e-5));
  CHECK(host_accelerator().downloads == before + 1);
  CHECK(given.mean_square.item() == doctest::Approx(wanted.mean_square.item()).epsilon(1e-5));
  CHECK(given.sum.item() == st::Scalar<>(given.sum).item());
  CHECK(host_accelerator().downloads == before + 2);
  check_networks(there, here, 1e-4);

  // A loss that is no number is told to who reads it, or a part of it.
  st::fill(there.body.layer<3>().weight.value(), std::nanf(""));
  const Losses broken = back(there);
  CHECK_THROWS_WITH_AS((void)broken.mean_square.item(), doctest::Contains("the loss is nan"), st::NumericError);
  CHECK_THROWS_WITH_AS((void)broken.sum.item(), doctest::Contains("the loss is nan"), st::NumericError);
  st::Train pass;
  CHECK(std::isnan(mean(square(there(pass, x.to(host_accelerator().device())))).item()));  // it did not go back
}

TEST_CASE("device: numbers of the host and of the device in one loss, and as operands of images") {
  const st::Device device = host_accelerator().device();
  const st::Image<2> x = random_image<2>(2, 3, 5, 1), y = random_image<2>(2, 4, 3, 2);
  const auto gradients = [&](st::Device of_x, st::Device of_y) {
    st::Train pass;
    const auto a = pass.watch(x.to(of_x)), b = pass.watch(y.to(of_y));
    const auto p = mean(square(a)), q = mean(abs(b));
    const auto r = mean(square(a * p - 0.5f)) + mean(square(b * p - q));  // a number of each is an operand of the other
    const auto loss = p * q + r * 2 - exp(q);
    pass.backward(loss);
    return std::tuple{pass.gradient(a), pass.gradient(b), loss.item()};
  };
  const auto [wanted_a, wanted_b, wanted] = gradients(st::Device::cpu(), st::Device::cpu());
  for (const auto& [of_x, of_y] :
       {std::pair{device, device}, {device, st::Device::cpu()}, {st::Device::cpu(), device}}) {
    const auto [a, b, loss] = gradients(of_x, of_y);
    CHECK(loss == doctest::Approx(wanted).epsilon(1e-5));
    check_close(a, wanted_a, "gradient of x", 1e-5);
    check_close(b, wanted_b, "gradient of y", 1e-5);
  }
}

TEST_CASE("device: gradients are measured and limited there") {
  Net here;
  st::initialize(here, 1);
  Net there = here;
  st::to(there, host_accelerator().device());
  for (Net* net : {&here, &there}) {
    const st::Device device = net->body.layer<0>().weight.device();
    st::Train pass;
    pass.backward(mean(square((*net)(pass, random_image<1>(1, 6, 6, 1).to(device)))));
  }
  CHECK(st::grad_norm(there) == doctest::Approx(st::grad_norm(here)).epsilon(1e-5));
  st::clip_grad_value_(here, 1e-3);
  st::clip_grad_value_(there, 1e-3);
  check_networks(there, here, 1e-3);
  st::fill(there.body.layer<3>().weight.grad(), std::nanf(""));
  CHECK_THROWS_WITH_AS(st::grad_norm(there), doctest::Contains("'body.3.weight'"), st::NumericError);
}

TEST_CASE("device: a scaled loss, and a step left out") {
  Net plain;
  st::initialize(plain, 2);
  st::to(plain, host_accelerator().device());
  Net scaled = plain;
  st::SGD plain_sgd(plain, {.lr = 0.05, .momentum = 0.9}), scaled_sgd(scaled, {.lr = 0.05, .momentum = 0.9});
  st::GradScaler none({.enabled = false}), scaler({.growth_interval = 2});
  const auto step = [](Net& net, st::SGD& sgd, st::GradScaler& gradients, std::uint32_t number, bool break_it = false) {
    const st::Device device = host_accelerator().device();
    st::Train pass;
    const auto loss = mean(square(net(pass, random_image<1>(2, 9, 8, 2 * number).to(device)) -
                                  random_image<1>(2, 9, 8, 2 * number + 1).to(device)));
    sgd.zero_grad();
    pass.backward(gradients.scale(loss));
    if (break_it) st::fill(net.body.layer<3>().weight.grad(), std::nanf(""));
    if (gradients.unscale_(sgd)) st::clip_grad_norm_(net, 0.5);
    const bool done = gradients.step(sgd);
    gradients.update();
    return done;
  };
  for (std::uint32_t i = 0; i < 5; ++i) {
    CHECK(step(plain, plain_sgd, none, i));
    CHECK(step(scaled, scaled_sgd, scaler, i));
  }
  CHECK(scaler.scale() == 65536 * 4);
  check_networks(scaled, plain, 0);  // powers of two change no bit
  const std::vector<float> before = st::to_nchw(scaled.body.layer<0>().weight.value().to(st::Device::cpu()));
  CHECK_FALSE(step(scaled, scaled_sgd, scaler, 5, true));
  CHECK(scaler.scale() == 65536 * 2);
  CHECK(st::to_nchw(scaled.body.layer<0>().weight.value().to(st::Device::cpu())) == before);
}

TEST_CASE("device: after the first step no memory is asked for") {
  Net net;
  st::to(net, host_accelerator().device());
  st::Adam adam(net, {.lr = 1e-3});
  training_step(net, adam, 0);
  training_step(net, adam, 1);
  const std::size_t blocks = host_accelerator().pool().fresh_blocks(), host_blocks = st::cpu_pool().fresh_blocks();
  for (std::uint32_t i = 0; i < 3; ++i) training_step(net, adam, i);
  CHECK(host_accelerator().pool().fresh_blocks() == blocks);
  CHECK(st::cpu_pool().fresh_blocks() == host_blocks);
}

TEST_CASE("device: weights and checkpoints go through the host") {
  const TemporaryFolder folder;
  const st::Device device = host_accelerator().device();
  Net net;
  st::initialize(net, 3);
  st::to(net, device);
  st::SGD sgd(net, {.lr = 0.05, .momentum = 0.9});
  training_step(net, sgd, 0);
  st::save_weights(folder.path() / "there.safetensors", net);
  Net here;
  st::load_weights(folder.path() / "there.safetensors", here);
  net.body.layer<0>().weight.zero_grad();
  st::zero_grad(net);
  check_networks(net, here, 0);
  Net again;
  st::to(again, device);
  st::load_weights(folder.path() / "there.safetensors", again);
  CHECK(again.body.layer<0>().weight.device() == device);
  check_networks(again, here, 0);

  // Stopped on the device and resumed on it, or on the CPU, is as never having stopped.
  st::save_checkpoint(folder.path() / "run.safetensors", {.epoch = 1}, net, sgd);
  Net resumed, on_cpu;
  st::to(resumed, device);
  st::SGD resumed_sgd(resumed, {.lr = 0.05, .momentum = 0.9}), cpu_sgd(on_cpu, {.lr = 0.05, .momentum = 0.9});
  CHECK(st::load_checkpoint(folder.path() / "run.safetensors", resumed, resumed_sgd).epoch == 1);
  st::load_checkpoint(folder.path() / "run.safetensors", on_cpu, cpu_sgd);
  training_step(net, sgd, 1);
  training_step(resumed, resumed_sgd, 1);
  training_step(on_cpu, cpu_sgd, 1);
  check_networks(resumed, net, 0);
  check_networks(on_cpu, net, 1e-3);
}
