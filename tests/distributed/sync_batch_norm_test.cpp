// Batch norm over all shards of a batch: the numbers of BatchNorm2d on the whole of it, and the same bits for any
// number of ranks, which are threads here. Over MPI: ranks.py.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <ratio>
#include <string>
#include <vector>

#include "strata/autograd/spatial.hpp"
#include "strata/deploy/fold.hpp"
#include "strata/distributed/data_parallel.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/resize.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/nn/sync_batch_norm.hpp"
#include "strata/optim/adam.hpp"
#include "thread_ranks.hpp"

template <int C>
using Sync = st::SyncBatchNorm2d<C>;
template <int C>
using Plain = st::BatchNorm2d<C>;

/// A module of one's own with all that a forward may do to images.
template <template <int> class Norm>
struct Block : st::Layer<Block<Norm>> {
  using io = st::maps<5, 5>;
  using keeps_its_form = void;  // to fold()
  st::Conv2d<5, 5, 1> conv;
  Norm<5> norm;
  st::Parameter gate{st::Shape{5, 1, 1}, 0.5f};

  static constexpr void visit(auto& self, auto&& f) {
    f("conv", self.conv);
    f("norm", self.norm);
    f("gate", self.gate);
  }
  static constexpr auto forward(auto& self, auto& pass, const auto& x) {
    const auto y = self.norm(pass, self.conv(pass, x));
    const auto mean = st::expand_as(pass, st::mean_over_pixels(pass, y), y);
    const auto middle = st::narrow<3, 5>(pass, st::cat(pass, y, square(mean)));
    const auto same = st::crop_like(pass, st::pad(pass, middle, {.right = 1, .bottom = 2}), x);
    const auto twice = st::interpolate(pass, same, 2 * x.h(), 2 * x.w());
    return x + st::resize_like(pass, twice, x) * self.gate - 0.25 * same;
  }
};

namespace {

/// Norms behind a convolution, behind a ReLU, with and without one behind, in other modules and alone.
template <template <int> class Norm>
using Net = st::Sequential<st::Conv2d<2, 5>, Norm<5>, st::ReLU, st::Conv2d<5, 5>, st::ReLU, Norm<5>,
                           st::Residual<st::Sequential<Norm<5>, st::ReLU, st::Conv2d<5, 5, 1>>>,
                           st::Checkpoint<Block<Norm>>, st::Conv2d<5, 2>, Norm<2>>;

template <int C, class T>
st::Image<C, T> random_image(std::int64_t n, std::int64_t h, std::int64_t w, std::uint32_t seed) {
  st::Image<C, T> image(n, h, w);
  st::Rng rng(seed);
  for (T& x : image.span()) x = T(rng.normal());
  return image;
}
template <class T>
using Batch = st::LoadedBatch<st::Image<2, T>, st::Image<2, T>>;

/// A rank's part of the whole batch.
template <class T>
Batch<T> part_of(const Batch<T>& whole, int shards, const st::World& world) {
  Batch<T> part;
  part.input = st::samples_of(whole.input, world.rank(), world.size());
  part.target = st::samples_of(whole.target, world.rank(), world.size());
  part.shards = shards / world.size();
  return part;
}
template <class T>
Batch<T> random_batch(std::int64_t n, std::int64_t h, std::int64_t w) {
  Batch<T> batch;
  batch.input = random_image<2, T>(n, h, w, 11);
  batch.target = random_image<2, T>(n, h, w, 12);
  return batch;
}

template <class M>
void randomise(M& net, std::uint64_t seed) {
  st::initialize(net, seed);
  st::Rng rng(seed);
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) {
    if (p.shape().rank() == 1)
      for (float& x : p.value().span()) x += 0.3f * rng.normal();  // weights and biases of norms too
  });
}

/// Gradients, if any, then running statistics.
template <class T, class M>
std::vector<double> state_of(M& net, bool gradients = true) {
  std::vector<double> all;
  const auto append = [&](const auto& tensor) {
    for (std::int64_t i = 0; i < tensor.size(); ++i) all.push_back(double(tensor.data()[i]));
  };
  st::for_each_tensor(net, [&]<class Leaf>(const std::string&, Leaf& leaf) {
    if constexpr (std::is_same_v<Leaf, st::Parameter>)
      gradients ? append(leaf.template grad<T>()) : append(std::as_const(leaf).template value<T>());
    else
      std::visit([&](const auto& tensor) { append(tensor); }, std::as_const(leaf).any_value());
  });
  return all;
}

template <class T>
void compare_with_whole_batch(int ranks, int shards, std::int64_t n, std::int64_t h, std::int64_t w, double tolerance) {
  CAPTURE(ranks);
  CAPTURE(shards);
  CAPTURE(h);
  const Batch<T> whole = random_batch<T>(n, h, w);
  const st::MSELoss mse;
  Net<Plain> alone;
  randomise(alone, 4);
  st::to<T>(alone);
  st::Train pass;
  const auto loss = mse(alone(pass, whole.input), whole.target);
  pass.backward(loss);
  const std::vector<double> wanted = state_of<T>(alone);
  double largest = 0;
  for (const double x : wanted) largest = std::max(largest, std::abs(x));

  std::vector<double> got;
  double mean = 0;
  on_threads(ranks, [&](const st::World& world) {
    Net<Sync> net;
    randomise(net, 4);
    st::to<T>(net);
    st::DataParallel parallel(net, world);
    const double of_all = parallel.step(part_of(whole, shards, world), {}, net, mse);
    st::check_equal(world, "after the step", net);
    if (!world.is_first()) return;
    got = state_of<T>(net);
    mean = of_all;
  });
  CHECK(mean == doctest::Approx(double(loss.item())).epsilon(tolerance));
  REQUIRE(got.size() == wanted.size());
  double error = 0;
  for (std::size_t i = 0; i < got.size(); ++i) error = std::max(error, std::abs(got[i] - wanted[i]));
  CHECK(error <= tolerance * largest);
}

/// As many convolutions and statistics as a small denoiser has, dropout, and a norm that stays with its shard.
using Mixed = st::Residual<st::Sequential<
    st::Conv2d<2, 6>, st::ReLU, st::Repeat<2, st::Sequential<st::Conv2d<6, 6, 3, st::no_bias>, Sync<6>, st::ReLU>>,
    st::DropoutOf<std::ratio<1, 4>>, st::Conv2d<6, 6>, Plain<6>, st::ReLU, st::Conv2d<6, 2>>>;

std::vector<double> trained(int ranks, int shards) {
  std::vector<double> result;
  on_threads(ranks, [&](const st::World& world) {
    const Batch<float> whole = random_batch<float>(24, 7, 5);
    Mixed net;
    randomise(net, world.is_first() ? 5 : 6);
    st::DataParallel parallel(net, world);
    st::Adam adam(net, {.lr = 1e-2});
    std::vector<double> losses;
    for (std::int64_t step = 0; step < 4; ++step) {
      adam.zero_grad();
      losses.push_back(parallel.step(part_of(whole, shards, world), {.seed = 2, .step = step}, net, st::L1Loss()));
      adam.step();
    }
    st::check_equal(world, "at the end", net, adam);
    if (!world.is_first()) return;
    result = state_of<float>(net, false);
    result.insert(result.end(), losses.begin(), losses.end());
  });
  return result;
}

}  // namespace

TEST_CASE("SyncBatchNorm2d over shards is BatchNorm2d on the whole batch, with its gradient and running statistics") {
  compare_with_whole_batch<double>(1, 4, 8, 7, 5, 1e-10);
  compare_with_whole_batch<double>(2, 4, 4, 3, 6, 1e-10);  // one image in each shard
  compare_with_whole_batch<double>(4, 4, 8, 1, 1, 1e-10);  // two pixels in each shard
  compare_with_whole_batch<double>(3, 3, 6, 5, 9, 1e-10);
  compare_with_whole_batch<double>(2, 6, 6, 1, 1, 1e-10);  // one pixel in each shard
  compare_with_whole_batch<float>(1, 4, 8, 7, 5, 3e-5);
  compare_with_whole_batch<float>(4, 8, 8, 6, 7, 3e-5);
}

TEST_CASE("the gradient through statistics of several ranks is that of central differences") {
  const Batch<double> whole = random_batch<double>(8, 4, 3);
  Net<Sync> first;
  randomise(first, 9);
  st::to<double>(first);
  struct Place {
    std::size_t parameter;
    std::int64_t element;
  };
  const std::vector<Place> places{{0, 7}, {0, 30}, {1, 2}, {2, 1}, {3, 3}, {4, 11}, {6, 0}, {8, 4}, {12, 3}, {14, 1}};
  /// The loss with one number moved, and the gradients.
  const auto run = [&](const Place& place, double by) {
    std::vector<std::vector<double>> gradients;
    double loss = 0;
    on_threads(2, [&](const st::World& world) {
      Net<Sync> net = first;
      std::vector<st::Parameter*> parameters;
      st::for_each_parameter(net, [&](const std::string&, st::Parameter& p) { parameters.push_back(&p); });
      parameters.at(place.parameter)->value<double>().data()[place.element] += by;
      st::DataParallel parallel(net, world);
      const double mean = parallel.step(part_of(whole, 4, world), {}, net, st::MSELoss());
      if (!world.is_first()) return;
      loss = mean;
      for (st::Parameter* p : parameters) {
        const st::Tensor<double>& grad = p->grad<double>();
        gradients.emplace_back(grad.data(), grad.data() + grad.size());
      }
    });
    return std::pair(loss, gradients);
  };
  const auto gradients = run(places[0], 0).second;
  for (const Place& place : places) {
    CAPTURE(place.parameter);
    constexpr double step = 1e-5;
    const double slope = (run(place, step).first - run(place, -step).first) / (2 * step);
    const double gradient = gradients.at(place.parameter).at(std::size_t(place.element));
    CHECK(std::abs(slope - gradient) <= 1e-6 * (1 + std::abs(slope)));
  }
}

TEST_CASE("1, 2, 4 and 8 ranks with statistics of the whole batch train to the same bits") {
  const std::vector<double> eight = trained(1, 8);
  for (const int ranks : {2, 4, 8}) CHECK(trained(ranks, 8) == eight);
  const std::vector<double> six = trained(1, 6);
  for (const int ranks : {2, 3, 6}) CHECK(trained(ranks, 6) == six);
  CHECK(six != eight);  // the norm that stays with its shard, and dropout
}

TEST_CASE("alone, and in inference, SyncBatchNorm2d is BatchNorm2d to the bit, and it is in files") {
  const Batch<float> whole = random_batch<float>(3, 6, 5);
  const auto run = [&]<template <int> class Norm>(Net<Norm>& net) {
    randomise(net, 3);
    st::DataParallel parallel(net, st::World());
    std::vector<double> all{parallel.step(whole, {}, net, st::MSELoss())};
    const std::vector<double> state = state_of<float>(net);
    all.insert(all.end(), state.begin(), state.end());
    st::Infer infer;
    const st::Image<2> y = net(infer, whole.input);
    const auto folded = st::fold(net);
    const st::Image<2> z = folded(infer, whole.input);
    for (const st::Image<2>& image : {y, z}) all.insert(all.end(), image.span().begin(), image.span().end());
    return all;
  };
  Net<Sync> sync;
  Net<Plain> plain;
  CHECK(run.template operator()<Sync>(sync) == run.template operator()<Plain>(plain));
  const auto names = [](auto& net) {
    std::vector<std::string> all;
    st::for_each_tensor(net, [&](const std::string& name, auto&) { all.push_back(name); });
    return all;
  };
  CHECK(names(sync) == names(plain));
  CHECK(st::SyncBatchNorm2d<5>::name() == "SyncBatchNorm2d(5, eps=1e-05, momentum=0.1)");

  // Frozen, it looks at nobody.
  CHECK(st::freeze_statistics(sync) == 5);
  const std::vector<double> before = state_of<float>(sync, false);
  on_threads(2, [&](const st::World& world) {
    Net<Sync> net = sync;
    st::DataParallel parallel(net, world);
    st::zero_grad(net);
    Batch<float> part;
    part.input = part.target = random_image<2, float>(2, 6, 5, 20 + std::uint32_t(world.rank()));
    part.shards = 2;
    parallel.step(part, {}, net, st::MSELoss());
    if (world.is_first()) CHECK(state_of<float>(net, false) == before);
  });
}

TEST_CASE("one shard on each rank goes through an ordinary forward, and several say what to do") {
  const Batch<float> whole = random_batch<float>(4, 6, 5);
  const auto run = [&](int ranks, int shards, bool by_network) {
    std::vector<double> result;
    on_threads(ranks, [&](const st::World& world) {
      Net<Sync> net;
      randomise(net, 8);
      st::DataParallel parallel(net, world);
      const auto forward = [&](auto& pass, const auto& x, const auto& y) { return st::MSELoss()(net(pass, x), y); };
      const Batch<float> part = part_of(whole, shards, world);
      by_network ? parallel.step(part, {}, net, st::MSELoss()) : parallel.step(part, {}, forward);
      if (world.is_first()) result = state_of<float>(net);
    });
    return result;
  };
  const std::vector<double> wanted = run(2, 2, true), got = run(2, 2, false);  // here a Checkpoint runs twice
  REQUIRE(got.size() == wanted.size());
  for (std::size_t i = 0; i < got.size(); ++i) CHECK(got[i] == doctest::Approx(wanted[i]).epsilon(1e-4));
  CHECK_THROWS_WITH_AS(run(1, 2, false), doctest::Contains("call parallel.step(batch, options, net, loss)"), st::Error);

  Net<Sync> net;
  randomise(net, 8);
  st::DataParallel parallel(net, st::World());
  CHECK_THROWS_WITH_AS(
      [&] {
        const Batch<float> part = part_of(whole, 2, st::World());
        for (const auto& [input, target] : parallel.shards(part)) {
          st::Train pass;
          pass.backward(st::MSELoss()(net(pass, input), target));
          parallel.reduce_gradients();
        }
      }(),
      doctest::Contains("parallel.options_of_shard"), st::Error);

  // An error leaves the network as it was.
  Net<Sync> other;
  randomise(other, 8);
  const std::vector<double> before = state_of<float>(other, false);
  st::DataParallel of_other(other, st::World());
  Batch<float> bad = part_of(whole, 2, st::World());
  bad.input = bad.input.clone();
  bad.input.data()[bad.input.size() - 1] = std::nanf("");
  CHECK_THROWS_AS(of_other.step(bad, {}, other, st::MSELoss()), st::NumericError);
  CHECK(state_of<float>(other, false) == before);
  CHECK_FALSE(other.template layer<0>().weight.has_grad());
}

TEST_CASE("all ranks gather what each has") {
  for (int ranks = 2; ranks <= 8; ++ranks) {
    std::atomic<int> right = 0;
    on_threads(ranks, [&](const st::World& world) {
      std::vector<int> all(std::size_t(3 * ranks), -1);
      for (int i = 0; i < 3; ++i) all[std::size_t(3 * world.rank() + i)] = 10 * world.rank() + i;
      st::detail::all_gather(*world.communicator(), std::as_writable_bytes(std::span(all)));
      bool equal = true;
      for (int i = 0; i < 3 * ranks; ++i) equal = equal && all[std::size_t(i)] == i / 3 * 10 + i % 3;
      right += int(equal);
    });
    CHECK(right == ranks);
  }
}
