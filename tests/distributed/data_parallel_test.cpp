// Training by several ranks, here threads: the same bits for any number of them, and what is refused. Over MPI:
// ranks.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <ratio>

#include "strata/data/data_loader.hpp"
#include "strata/distributed/data_parallel.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/adam.hpp"
#include "thread_ranks.hpp"

/// A layer whose weight is used, and whose step on the way back does not say so.
struct Silent : st::Layer<Silent> {
  using io = st::keeps;
  st::Parameter weight{st::Shape{1}, 1.0f};
  static constexpr void visit(auto& self, auto&& f) { f("weight", self.weight); }
  template <st::Pass P, int C, class T>
  static auto forward(auto& self, P& pass, st::Var<C, T> x) {
    auto y = pass.output(x.value());
    if constexpr (P::training)
      pass.tape()->record(y.id(), [&self, id = y.id(), x_id = x.id()](st::Tape& tape) {
        const auto to = self.weight.template grad_target<T>();
        to.data[0] = (to.accumulate ? to.data[0] : T(0)) + tape.gradient<T>(id)[0];
        if (!tape.move_gradient(id, x_id)) throw st::Error("another use");
      });
    return y;
  }
};

namespace {

/// Shards summed by hand, as the tree says: neighbours, then sums of neighbours.
template <class T>
std::vector<T> tree_by_hand(std::vector<std::vector<T>> rows) {
  for (std::size_t stride = 1; stride < rows.size(); stride *= 2)
    for (std::size_t i = 0; i + stride < rows.size(); i += 2 * stride)
      for (std::size_t k = 0; k < rows[i].size(); ++k) rows[i][k] += rows[i + stride][k];
  return rows[0];
}

std::vector<float> numbers(std::size_t count, std::uint32_t shard) {
  st::Rng rng(7, 0, shard);
  std::vector<float> row(count);
  for (float& x : row) x = rng.normal();
  return row;
}

using Net =
    st::Sequential<st::Conv2d<1, 6>, st::BatchNorm2d<6>, st::ReLU, st::DropoutOf<std::ratio<1, 4>>, st::Conv2d<6, 1>>;

struct Noise {
  std::size_t size() const { return 26; }
  st::Sample<1> get(std::size_t, st::Rng& rng) const {
    st::Image<1> input(1, 7, 5), target(1, 7, 5);
    for (float& x : input.span()) x = rng.normal();
    for (float& x : target.span()) x = rng.normal();
    return {input, target};
  }
};

struct Trained {
  std::vector<float> numbers;
  std::vector<std::int64_t> tracked;
  std::vector<double> losses;
  bool operator==(const Trained&) const = default;
};

/// Whether gradients leave while backward() runs, how many at once, and over what.
struct Leaving {
  std::size_t bucket_bytes = 1 << 20;
  bool engine_waits = false;
  double* early_share = nullptr;
};

/// Six steps of two epochs: the weights, statistics and losses of rank 0.
Trained train(int ranks, int shards, bool by_hand = false, const Leaving& leaving = {}) {
  Trained result;
  Post post;
  post.waits_at_once = leaving.engine_waits;
  on_threads(
      ranks,
      [&](const st::World& world) {
        const Noise data;
        const st::DataLoader loader(
            data, {.batch_size = 8, .shuffle = true, .drop_last = true, .seed = 3, .shards = shards, .world = world});
        Net net;
        st::initialize(net, world.is_first() ? 5 : 6);  // rank 0's reach all
        st::DataParallel parallel(net, world, {.bucket_bytes = leaving.bucket_bytes});
        st::Adam adam(net, {.lr = 1e-2});
        const st::MSELoss mse;
        std::vector<double> losses;
        std::int64_t step = 0;
        for (int epoch = 0; epoch < 2; ++epoch)
          for (const auto& batch : loader.epoch(epoch)) {
            adam.zero_grad();
            if (by_hand) {
              for (const auto& [input, target] : parallel.shards(batch)) {
                st::Train pass(parallel.options_of_shard({.seed = 2, .step = step}));
                const auto loss = mse(net(pass, input), target);
                pass.backward(loss);
                parallel.reduce_gradients(double(loss.item()));
              }
              losses.push_back(parallel.loss());
            } else {
              losses.push_back(parallel.step(
                  batch, {.seed = 2, .step = step},
                  [&](auto& pass, const auto& input, const auto& target) { return mse(net(pass, input), target); }));
            }
            adam.step();
            ++step;
          }
        st::check_equal(world, "at the end", net, adam);
        if (!world.is_first()) return;
        if (leaving.early_share != nullptr) *leaving.early_share = parallel.early_share();
        result.losses = losses;
        st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
          if (const auto* floats = std::get_if<st::Tensor<float>>(&leaf.any_value()))
            result.numbers.insert(result.numbers.end(), floats->span().begin(), floats->span().end());
          if (const auto* counts = std::get_if<st::Tensor<std::int64_t>>(&leaf.any_value()))
            result.tracked.insert(result.tracked.end(), counts->span().begin(), counts->span().end());
        });
      },
      &post);
  if (!post.failure.empty()) throw st::Error(post.failure);
  return result;
}

/// The same steps by a program that knows nothing of ranks.
Trained train_alone() {
  Trained result;
  const Noise data;
  const st::DataLoader loader(data, {.batch_size = 8, .shuffle = true, .drop_last = true, .seed = 3});
  Net net;
  st::initialize(net, 5);
  st::Adam adam(net, {.lr = 1e-2});
  const st::MSELoss mse;
  std::int64_t step = 0;
  for (int epoch = 0; epoch < 2; ++epoch)
    for (const auto& [input, target] : loader.epoch(epoch)) {
      st::Train pass({.seed = 2, .step = step++});
      const auto loss = mse(net(pass, input), target);
      adam.zero_grad();
      pass.backward(loss);
      adam.step();
      result.losses.push_back(double(loss.item()));
    }
  st::for_each_tensor(net, [&](const std::string&, auto& leaf) {
    if (const auto* floats = std::get_if<st::Tensor<float>>(&leaf.any_value()))
      result.numbers.insert(result.numbers.end(), floats->span().begin(), floats->span().end());
    if (const auto* counts = std::get_if<st::Tensor<std::int64_t>>(&leaf.any_value()))
      result.tracked.insert(result.tracked.end(), counts->span().begin(), counts->span().end());
  });
  return result;
}

}  // namespace

TEST_CASE("sums over shards are those of the tree, for any number of shards and ranks that divide them") {
  for (const int shards : {1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 16, 24})
    for (int ranks = 1; ranks <= std::min(shards, 8); ++ranks) {
      if (shards % ranks != 0) continue;
      for (const std::size_t count : {std::size_t(1), std::size_t(5003)}) {  // whole, and in parts
        CAPTURE(shards);
        CAPTURE(ranks);
        std::vector<std::vector<float>> rows;
        for (int shard = 0; shard < shards; ++shard) rows.push_back(numbers(count, std::uint32_t(shard)));
        const std::vector<float> wanted = tree_by_hand(rows);
        std::atomic<int> right = 0;
        Post post;
        on_threads(
            ranks,
            [&](const st::World& world) {
              st::detail::TreeSum<float> sum;
              for (int again = 0; again < 2; ++again) {
                const int own = shards / ranks;
                sum.begin(shards, world.rank() * own, (world.rank() + 1) * own);
                for (int shard = world.rank() * own; shard < (world.rank() + 1) * own; ++shard)
                  sum.add(numbers(count, std::uint32_t(shard)));
                std::vector<float> total = sum.over(world.communicator());
                right += int(std::memcmp(total.data(), wanted.data(), count * sizeof(float)) == 0);
                sum.give_spare(std::move(total));
              }
            },
            &post);
        CHECK(right == 2 * ranks);
        // The least that an allreduce can send: 2 (1 - 1 / ranks) of the numbers, from each rank.
        if (count > 5000 && (shards == 8 || shards == 16) && (ranks & (ranks - 1)) == 0)
          for (const std::int64_t bytes : post.bytes)
            CHECK(std::abs(double(bytes) - 2 * 2 * double(count) * sizeof(float) * (1 - 1.0 / ranks)) <=
                  2 * 8.0 * ranks);
      }
    }
}

TEST_CASE("1, 2, 4 and 8 ranks train to the same bits, and shards decide which") {
  const Trained alone = train_alone();
  CHECK(train(1, 1) == alone);
  const Trained one = train(1, 8);
  CHECK(one.losses.size() == 6);
  CHECK(one.tracked == alone.tracked);
  CHECK(one.numbers != alone.numbers);
  for (const int ranks : {2, 4, 8}) CHECK(train(ranks, 8) == one);
  CHECK(train(2, 8, true) == one);
  const Trained four = train(1, 4);
  CHECK(four.numbers != one.numbers);
  CHECK(train(2, 4) == four);
  CHECK(train(2, 2) == train(1, 2));
}

TEST_CASE("gradients that leave during backward() end in the same bits, whatever the buckets and the engine") {
  const Trained one = train(1, 8);
  for (const bool engine_waits : {false, true})
    for (const int ranks : {2, 4, 8}) {
      CAPTURE(engine_waits);
      CAPTURE(ranks);
      double share = 0;
      CHECK(train(ranks, 8, false, {.bucket_bytes = 1, .engine_waits = engine_waits, .early_share = &share}) == one);
      // The first layer's weights, running statistics and the loss leave at the end. Of the others all, or at least
      // what is sent first: one of log2(ranks) messages.
      CHECK(share > (engine_waits ? 0.45 : 0.15));
      CHECK(train(ranks, 8, false, {.bucket_bytes = 200, .engine_waits = engine_waits, .early_share = &share}) == one);
      CHECK(share > (engine_waits ? 0.35 : 0.12));  // the last layer's
      CHECK(train(ranks, 8, false, {.engine_waits = engine_waits, .early_share = &share}) == one);
      CHECK(share == 0);  // all of them are less than a bucket
    }
}

TEST_CASE("several sums may be under way at once, each rank looking after them in an order of its own") {
  for (const int ranks : {2, 4, 8}) {
    std::atomic<int> right = 0;
    on_threads(ranks, [&](const st::World& world) {
      std::vector<std::vector<float>> own;
      std::vector<st::detail::ButterflySum<float>> sums;
      const std::size_t counts[] = {5003, 1, 20000, 4096, 4097};
      for (std::size_t i = 0; i < 5; ++i)
        own.push_back(numbers(counts[i], std::uint32_t(100 * i) + std::uint32_t(world.rank())));
      for (std::size_t i = 0; i < 5; ++i) sums.emplace_back(*world.communicator(), int(i) + 1, std::span(own[i]));
      for (std::size_t done = 0, turn = std::size_t(world.rank()); done < 5; ++turn) {
        sums[turn % 5].advance();
        done = std::size_t(std::count_if(sums.begin(), sums.end(), [](const auto& sum) { return sum.complete(); }));
      }
      for (std::size_t i = 0; i < 5; ++i) {
        std::vector<std::vector<float>> rows;
        for (int rank = 0; rank < ranks; ++rank)
          rows.push_back(numbers(counts[i], std::uint32_t(100 * i) + std::uint32_t(rank)));
        right += int(tree_by_hand(rows) == own[i]);
      }
    });
    CHECK(right == 5 * ranks);
  }
}

TEST_CASE("a gradient that changes after it has left is an error") {
  const Noise data;
  const auto train_once = [&]<class OwnNet>(OwnNet, auto&& after) {
    on_threads(2, [&](const st::World& world) {
      OwnNet net;
      st::initialize(net, 1);
      st::DataParallel parallel(net, world, {.bucket_bytes = 1});
      const st::DataLoader loader(data, {.batch_size = 8, .drop_last = true, .shards = 2, .world = world});
      const st::MSELoss mse;
      auto epoch = loader.epoch(0);
      for (const auto& [x, y] : parallel.shards(*epoch.begin())) {
        st::Train pass(parallel.options_of_shard({}));
        parallel.backward(pass, mse(net(pass, x), y));
        after(net, parallel, x, y);
        parallel.reduce_gradients();
      }
    });
  };
  using Plain = st::Sequential<st::Conv2d<1, 4>, st::ReLU, st::Conv2d<4, 1>>;
  const st::MSELoss mse;
  train_once(Plain(), [](auto&&...) {});
  CHECK_THROWS_WITH_AS(
      train_once(Plain(), [](auto& net, auto&&...) { *net.template layer<2>().weight.grad().data() += 1; }),
      doctest::Contains("the gradient of '2.weight' has changed after it was sent"), st::Error);
  CHECK_THROWS_WITH_AS(train_once(Plain(),
                                  [&](auto& net, auto& parallel, const auto& x, const auto& y) {
                                    st::Train pass;
                                    parallel.backward(pass, mse(net(pass, x), y));
                                  }),
                       doctest::Contains("a second backward() for one shard"), st::Error);
  CHECK_THROWS_WITH_AS(train_once(st::Sequential<st::Conv2d<1, 4>, Silent, st::Conv2d<4, 1>>(), [](auto&&...) {}),
                       doctest::Contains("the gradient of '1.weight' has changed after it was sent"), st::Error);
}

TEST_CASE("the gradient over shards is that of the whole batch, where no layer looks at its batch") {
  using Plain = st::Sequential<st::Conv2d<1, 4>, st::ReLU, st::Conv2d<4, 1>>;
  const Noise data;
  Plain whole;
  st::initialize(whole, 1);
  Plain cut = whole;
  const st::MSELoss mse;
  const st::DataLoader plain(data, {.batch_size = 6, .drop_last = true}),
      sharded(data, {.batch_size = 6, .drop_last = true, .shards = 3});
  st::DataParallel parallel(cut, st::World());
  auto plain_epoch = plain.epoch(0);
  st::Train pass;
  const auto loss = mse(whole(pass, plain_epoch.begin()->input), plain_epoch.begin()->target);
  pass.backward(loss);
  auto epoch = sharded.epoch(0);
  const double mean = parallel.step(
      *epoch.begin(), {}, [&](auto& of_shard, const auto& x, const auto& y) { return mse(cut(of_shard, x), y); });
  CHECK(mean == doctest::Approx(double(loss.item())).epsilon(1e-6));
  const auto& a = whole.template layer<0>().weight.grad();
  const auto& b = cut.template layer<0>().weight.grad();
  double largest = 0;
  for (std::int64_t i = 0; i < a.size(); ++i) largest = std::max(largest, double(std::abs(a.data()[i])));
  for (std::int64_t i = 0; i < a.size(); ++i) CHECK(std::abs(double(a.data()[i] - b.data()[i])) <= 1e-5 * largest);
}

TEST_CASE("what cannot be shared is said in a sentence") {
  const Noise data;
  CHECK_THROWS_WITH_AS(st::DataLoader(data, {.batch_size = 9, .shards = 2}),
                       doctest::Contains("cannot be cut into 2 shards"), st::ValueError);
  CHECK_THROWS_WITH_AS(st::DataLoader(data, {.batch_size = 8, .shards = 4}), doctest::Contains(".drop_last = true"),
                       st::ValueError);
  CHECK_THROWS_WITH_AS(st::DataLoader(data, {.batch_size = 8, .shards = 0}), doctest::Contains(".shards = 0"),
                       st::ValueError);
  on_threads(4, [&](const st::World& world) {
    CHECK_THROWS_WITH_AS(st::DataLoader(data, {.batch_size = 8, .world = world}),
                         doctest::Contains("4 ranks cannot share 1 shard"), st::ValueError);
    CHECK_THROWS_WITH_AS(st::DataLoader(data, {.batch_size = 12, .shards = 6, .world = world}),
                         doctest::Contains("cannot share 6 shards"), st::ValueError);
  });
  Net net;
  st::DataParallel parallel(net, st::World());
  const st::DataLoader loader(data, {.batch_size = 8, .drop_last = true, .shards = 4});
  auto epoch = loader.epoch(0);
  net.template layer<0>().weight.grad_target<float>();
  CHECK_THROWS_WITH_AS(parallel.shards(*epoch.begin()), doctest::Contains("zero_grad()"), st::Error);
  st::zero_grad(net);
  CHECK_THROWS_WITH_AS(
      [&] {
        for (const auto& shard : parallel.shards(*epoch.begin())) static_cast<void>(shard);
      }(),
      doctest::Contains("reduce_gradients() once for each shard"), st::Error);
}

TEST_CASE("ranks agree, share work and hear of each other's errors") {
  on_threads(3, [](const st::World& world) {
    CHECK(world.any(world.rank() == 2));
    CHECK_FALSE(world.any(false));
    const std::vector<double> squares = world.each(7, [](std::size_t i) { return double(i * i); });
    CHECK(squares == std::vector<double>{0, 1, 4, 9, 16, 25, 36});
    CHECK(world.each(1, [](std::size_t i) { return double(i + 1); }) == std::vector<double>{1});
  });
  std::atomic<int> status = 0;
  Post post;
  on_threads(
      4,
      [&](const st::World& world) {
        status += world.run("test", [&]() -> int {
          if (world.rank() == 2) throw st::FileError("image 7: gone");
          world.barrier();
          return 0;
        });
      },
      &post);
  CHECK(status == 4);
  CHECK(post.failure == "rank 2 of 4 on localhost: image 7: gone");
  Net net;
  CHECK_THROWS_WITH_AS(on_threads(2,
                                  [&](const st::World& world) {
                                    Net own;
                                    if (world.rank() == 1) {
                                      st::Sequential<st::Conv2d<1, 2>> other;
                                      st::DataParallel parallel(other, world);
                                    } else {
                                      st::DataParallel parallel(own, world);
                                    }
                                  }),
                       doctest::Contains("runs another program than rank 0, has another network"), st::Error);
  CHECK_THROWS_WITH_AS(on_threads(2,
                                  [&](const st::World& world) {
                                    Net own;
                                    st::initialize(own, std::uint64_t(world.rank()));
                                    st::check_equal(world, "after step 3", own);
                                  }),
                       doctest::Contains("rank 1 of 2 on localhost holds other numbers than rank 0 after step 3"),
                       st::Error);
}
