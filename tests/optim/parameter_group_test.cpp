// Parameters that an optimiser treats in their own way, frozen ones, and the gradient of a large batch in parts.
#include "strata/optim/parameter_group.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "autograd/random_image.hpp"
#include "strata/autograd/gradient_check.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/group_norm.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/lr_scheduler.hpp"
#include "strata/optim/rmsprop.hpp"
#include "strata/optim/sgd.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
using strata_test::random_image;

namespace {

struct Net {
  using io = st::maps<1, 1>;
  using Stage = st::Sequential<st::Conv2d<1, 4>, st::BatchNorm2d<4>, st::PReLU<4>, st::Conv2d<4, 4>, st::ReLU>;
  Stage backbone;
  st::LayerNorm2d<4> norm;
  st::Parameter gamma{st::Shape{1, 4, 1, 1}, 1.0f};
  st::Checkpoint<st::Conv2d<4, 1>> head;
  static constexpr void visit(auto& self, auto&& f) {
    f("backbone", self.backbone);
    f("norm", self.norm);
    f("gamma", self.gamma);
    f("head", self.head);
  }
  auto operator()(auto& pass, const auto& x) { return head(pass, norm(pass, backbone(pass, x))); }
};

void set_gradients(Net& net, float value) {
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    p.zero_grad();
    std::fill_n(p.grad_target<float>().data, p.size(), value);
  });
}

/// The first number of each parameter.
std::map<std::string, float> firsts(Net& net) {
  std::map<std::string, float> numbers;
  st::for_each_parameter(
      net, [&](const std::string& name, st::Parameter& p) { numbers[name] = std::as_const(p).value().data()[0]; });
  return numbers;
}

}  // namespace

TEST_CASE("what parameters are") {
  Net net;
  std::map<std::string, st::ParameterKind> kinds;
  std::vector<std::string> order, wanted;
  st::for_each_parameter_kind(net, [&](const std::string& name, st::Parameter&, st::ParameterKind kind) {
    kinds[name] = kind;
    order.push_back(name);
  });
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter&) { wanted.push_back(name); });
  CHECK(order == wanted);
  using enum st::ParameterKind;
  CHECK(kinds == std::map<std::string, st::ParameterKind>{{"backbone.0.weight", weight},
                                                          {"backbone.0.bias", bias},
                                                          {"backbone.1.weight", norm},
                                                          {"backbone.1.bias", norm},
                                                          {"backbone.2.weight", other},
                                                          {"backbone.3.weight", weight},
                                                          {"backbone.3.bias", bias},
                                                          {"norm.weight", norm},
                                                          {"norm.bias", norm},
                                                          {"gamma", other},
                                                          {"head.weight", weight},
                                                          {"head.bias", bias}});
}

TEST_CASE("groups give learning rates, decays and what is frozen; the last that says it has the word") {
  Net net;
  st::initialize(net, 1);
  st::AdamW adam(
      net, {.lr = 1e-2, .weight_decay = 0.5},
      {{.when = st::biases_and_norms, .weight_decay = 0},
       {.when = st::named("backbone"), .lr_factor = 0.1},
       {.when = st::named("backbone.0"), .frozen = true},
       {.when = [](const st::ParameterFacts& p) { return p.name == "gamma"; }, .lr = 1e-3, .weight_decay = 0.25}});
  CHECK(adam.lr_of("backbone.3.weight") == doctest::Approx(1e-3));
  CHECK(adam.weight_decay_of("backbone.3.weight") == 0.5);
  CHECK(adam.lr_of("backbone.3.bias") == doctest::Approx(1e-3));
  CHECK(adam.weight_decay_of("backbone.3.bias") == 0);
  CHECK(adam.lr_of("head.weight") == 1e-2);
  CHECK(adam.weight_decay_of("gamma") == 0.25);
  CHECK(adam.weight_decay_of("backbone.2.weight") == 0);
  CHECK_FALSE(net.backbone.layer<0>().weight.requires_grad);
  CHECK(net.backbone.layer<3>().weight.requires_grad);

  st::MultiStepLR scheduler(adam, {.milestones = {1}, .gamma = 0.5});
  scheduler.step();  // all groups keep their ratio
  CHECK(adam.lr_of("head.weight") == doctest::Approx(5e-3));
  CHECK(adam.lr_of("gamma") == doctest::Approx(5e-4));
  CHECK(adam.lr_of("backbone.3.weight") == doctest::Approx(5e-4));

  const auto before = firsts(net);
  set_gradients(net, 2.0f);
  adam.step();
  // Adam's first step is lr for a gradient of any size; AdamW shrinks the weight by lr * decay first.
  for (const auto& [name, now] : firsts(net)) {
    CAPTURE(name);
    const bool frozen = name.starts_with("backbone.0.");
    const double lr = frozen ? 0 : adam.lr_of(name), was = before.at(name);
    CHECK(double(now) == doctest::Approx(was * (1 - lr * adam.weight_decay_of(name)) - lr).epsilon(1e-6));
  }
}

TEST_CASE("each optimiser steps its groups as one made for each of them") {
  const auto check = [](auto make) {
    Net grouped, fast, slow;
    for (Net* net : {&grouped, &fast, &slow}) st::initialize(*net, 3);
    auto both = make(grouped, 0.2, 0.1,
                     std::vector<st::ParameterGroup>{{.when = st::named("head"), .lr = 0.02, .weight_decay = 0}});
    auto first = make(fast, 0.2, 0.1, {});
    auto second = make(slow, 0.02, 0.0, {});
    for (int step = 0; step < 3; ++step) {
      for (Net* net : {&grouped, &fast, &slow}) set_gradients(*net, float(1 + step));
      both->step(), first->step(), second->step();
    }
    for (const auto& [name, now] : firsts(grouped)) {
      CAPTURE(name);
      if (name.starts_with("head"))
        CHECK(now == doctest::Approx(firsts(slow).at(name)).epsilon(1e-6));
      else
        CHECK(now == firsts(fast).at(name));
    }
  };
  using Groups = std::vector<st::ParameterGroup>;
  check([](Net& net, double lr, double decay, const Groups& groups) {
    return std::make_unique<st::SGD>(net, st::SGDOptions{.lr = lr, .momentum = 0.9, .weight_decay = decay}, groups);
  });
  check([](Net& net, double lr, double decay, const Groups& groups) {
    return std::make_unique<st::Adam>(net, st::AdamOptions{.lr = lr, .weight_decay = decay}, groups);
  });
  check([](Net& net, double lr, double decay, const Groups& groups) {
    return std::make_unique<st::RMSprop>(net, st::RMSpropOptions{.lr = lr, .weight_decay = decay}, groups);
  });
}

TEST_CASE("a checkpoint goes on with groups, by name") {
  const strata_test::TemporaryFolder folder;
  const auto path = folder / "run.safetensors";
  const std::vector<st::ParameterGroup> groups{{.when = st::named("head"), .lr_factor = 0.5}};
  Net net;
  st::SGD sgd(net, {.lr = 0.1, .momentum = 0.9}, groups);
  set_gradients(net, 1);
  sgd.set_lr(0.05);
  sgd.step();
  st::save_checkpoint(path, {}, net, sgd);
  set_gradients(net, 2);
  sgd.step();
  Net other;
  st::SGD resumed(other, {.lr = 0.1, .momentum = 0.9}, groups);
  st::load_checkpoint(path, other, resumed);
  CHECK(resumed.lr_of("head.weight") == 0.025);
  set_gradients(other, 2);
  resumed.step();
  CHECK(firsts(net) == firsts(other));
}

TEST_CASE("what is wrong with a group is said") {
  Net net;
  const auto all = [](const st::ParameterFacts&) { return true; };
  using Groups = std::vector<st::ParameterGroup>;
  const auto check = [&](const Groups& groups, const char* text, double lr = 0.1) {
    CHECK_THROWS_WITH_AS(st::SGD(net, {.lr = lr}, groups), doctest::Contains(text), st::ValueError);
  };
  check(Groups{{.when = all, .frozen = true}, {.when = st::named("back")}},
        "SGD: no parameter belongs to group number 1 (from 0)");
  CHECK(net.gamma.requires_grad);  // nothing was changed
  check(Groups{{.lr = 1}}, "says nothing of which parameters");
  check(Groups{{.when = all, .lr = 1, .lr_factor = 1}}, "both lr and lr_factor");
  check(Groups{{.when = all, .lr = -1}}, "a group's lr is -1");
  check(Groups{{.when = all, .weight_decay = std::nan("")}}, "a group's weight_decay");
  check(Groups{{.when = all, .lr = 1}}, "have no ratio", 0);
  CHECK_THROWS_AS(st::SGD(net).lr_of("nobody"), st::ValueError);
}

TEST_CASE("what is frozen in front costs no way back, and changes nothing else") {
  const auto x = random_image<1, float>(2, 9, 8, 1);
  Net kept, frozen;
  for (Net* net : {&kept, &frozen}) st::initialize(*net, 3);
  CHECK(st::freeze(frozen.backbone) == 7);
  std::size_t live[2];
  int i = 0;
  for (Net* net : {&kept, &kept, &frozen, &frozen}) {  // twice, since a tape keeps what it has taken
    st::zero_grad(*net);
    st::Train pass;
    const std::size_t before = st::cpu_pool().live_bytes();
    const auto loss = mean(square((*net)(pass, x)));
    live[i / 2] = st::cpu_pool().live_bytes() - before;
    ++i;
    pass.backward(loss);
  }
  CHECK(live[1] < live[0] / 2);
  CHECK_FALSE(frozen.backbone.layer<0>().weight.has_grad());
  CHECK_FALSE(frozen.backbone.layer<2>().weight.has_grad());
  const auto numbers = [](Net& net) {
    const auto grad = net.head.body.weight.grad().span();
    return std::vector<float>(grad.begin(), grad.end());
  };
  CHECK(numbers(kept) == numbers(frozen));
  CHECK(kept.backbone.layer<1>().running_mean.value().data()[1] ==
        frozen.backbone.layer<1>().running_mean.value().data()[1]);
  CHECK(st::freeze(frozen, st::of_kind(st::ParameterKind::bias), false) == 3);
  CHECK(frozen.backbone.layer<0>().bias.requires_grad);
  st::Train pass;
  pass.backward(mean(square(frozen(pass, x))));
  CHECK(frozen.backbone.layer<0>().bias.has_grad());
  CHECK_FALSE(frozen.backbone.layer<0>().weight.has_grad());
}

TEST_CASE("a batch norm with frozen statistics is a scale and a shift in training") {
  using Norms =
      st::Sequential<st::Conv2d<1, 4>, st::BatchNorm2d<4>, st::ReLU, st::Conv2d<4, 4>, st::ReLU, st::BatchNorm2d<4>>;
  Norms net;
  st::initialize(net, 5);
  const auto x = random_image<1, float>(2, 6, 5, 1);
  for (int step = 0; step < 3; ++step) {  // running statistics of its own
    st::Train pass;
    net(pass, x);
  }
  CHECK(st::freeze_statistics(net) == 2);
  const float mean_before = net.layer<1>().running_mean.value().data()[2];
  st::Infer infer;
  st::Train pass;
  const auto y = net(pass, x);
  const st::Image<4> wanted = net(infer, x);
  for (std::int64_t i = 0; i < wanted.size(); ++i)
    CHECK(std::abs(y.data()[i] - wanted.data()[i]) <= 1e-5f * (1 + std::abs(wanted.data()[i])));
  pass.backward(sum(square(y)));
  CHECK(net.layer<1>().running_mean.value().data()[2] == mean_before);
  CHECK(net.layer<1>().num_batches_tracked.value<std::int64_t>().data()[0] == 3);
  {
    st::Train one;  // one value for each channel will do
    CHECK_NOTHROW(one.backward(sum(net(one, random_image<1, float>(1, 1, 1, 2)))));
  }
  st::zero_grad(net);
  st::to<double>(net);
  const auto report = st::gradient_check(net, random_image<1>(2, 5, 3, 7));
  CHECK_MESSAGE(report.ok(), report.str());
  CHECK(st::freeze_statistics(net, false) == 2);
  const auto moving = st::gradient_check(net, random_image<1>(2, 5, 3, 7));
  CHECK_MESSAGE(moving.ok(), moving.str());
  st::Train thawed;
  net(thawed, random_image<1, double>(2, 5, 3, 7));
  CHECK(net.layer<1>().num_batches_tracked.value<std::int64_t>().data()[0] == 4);
}

// Sums of other order: the parts' gradients are rounded by themselves.
TEST_CASE("the gradients of parts of a batch, each with its share of the loss, are the batch's") {
  using Plain = st::Sequential<st::Conv2d<2, 8>, st::ReLU, st::Conv2d<8, 2>>;
  Plain whole, parts;
  st::initialize(whole, 3);
  st::initialize(parts, 3);
  const auto x = random_image<2, float>(8, 7, 9, 1), target = random_image<2, float>(8, 7, 9, 2);
  const st::MSELoss mse;
  st::SGD one(whole, {.lr = 0.1}), many(parts, {.lr = 0.1});
  {
    st::Train pass;
    one.zero_grad();
    pass.backward(mse(whole(pass, x), target));
    one.step();
  }
  many.zero_grad();
  for (int part = 0; part < 4; ++part) {
    const auto rows = [&](const st::Image<2>& from) {
      st::Image<2> image(2, from.h(), from.w());
      std::copy_n(from.data() + part * image.size(), image.size(), image.data());
      return image;
    };
    st::Train pass;
    pass.backward(mse(parts(pass, rows(x)), rows(target)) / 4);
  }
  many.step();
  const auto &a = whole.layer<0>().weight, &b = parts.layer<0>().weight;
  for (std::int64_t i = 0; i < a.size(); ++i) CHECK(std::abs(a.value().data()[i] - b.value().data()[i]) < 1e-6f);
}
