// What training by several ranks costs: a step written by hand beside one by DataParallel, one process, in turns; and,
// where mpirun starts several, the messages and bytes of a step, and how many of them leave before backward() ends.
//
//     ranks_cost [ROUNDS]                  # one process
//     mpirun -n 2 ranks_cost 1             # counts
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

#include "strata/distributed/data_parallel.hpp"
#include "strata/networks/dncnn.hpp"
#include "strata/networks/resnet.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace {

template <class F>
double seconds(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
  return values[values.size() / 2];
}

template <class Net, class Batch, class Loss>
void measure(const char* name, const st::World& world, const Batch& whole, const Loss& loss, int rounds) {
  Net net;
  st::initialize(net, 1);
  st::DataParallel parallel(net, world);
  st::SGD sgd(net, {.lr = 1e-3, .momentum = 0.9});
  std::int64_t numbers = 0, step = 0;
  st::for_each_tensor(net, [&](const std::string&, const auto& leaf) { numbers += leaf.shape().size(); });
  const auto by_hand = [&] {
    st::Train pass({.seed = 1, .step = step++});
    const auto value = loss(net(pass, whole.input), whole.target);
    sgd.zero_grad();
    pass.backward(value);
    sgd.step();
  };
  const auto by_ranks = [&](const Batch& batch) {
    sgd.zero_grad();
    parallel.step(batch, {.seed = 1, .step = step++}, net, loss);
    sgd.step();
  };
  if (const st::Communicator* ranks = world.communicator()) {
    by_ranks(whole);
    const std::int64_t bytes = ranks->bytes_sent(), messages = ranks->messages_sent();
    by_ranks(whole);
    const double least = 2 * (1 - 1.0 / world.size()) * 4 * double(numbers);
    if (world.is_first())
      std::printf(
          "%s, %d ranks: %lld messages, %lld bytes, %.4f of the least; %.1f %% on their way before the end of "
          "backward()\n",
          name, world.size(), static_cast<long long>(ranks->messages_sent() - messages),
          static_cast<long long>(ranks->bytes_sent() - bytes), double(ranks->bytes_sent() - bytes) / least,
          100 * parallel.early_share());
    return;
  }
  Batch cut = whole;
  cut.shards = 8;
  std::vector<double> alone, noise, ratio_one, ratio_eight;
  for (int round = 0; round < rounds + 1; ++round) {
    const double a = seconds(by_hand), b = seconds([&] { by_ranks(whole); }), again = seconds(by_hand),
                 c = seconds([&] { by_ranks(cut); });
    if (round == 0) continue;  // the first takes memory
    alone.push_back(a);
    ratio_one.push_back(b / a);
    noise.push_back(again / a);
    ratio_eight.push_back(c / a);
  }
  std::printf("%s: %lld numbers, a step %.1f ms, the same again %.4f of it; by DataParallel with 1 shard %.4f, with 8 "
              "shards %.4f\n",
              name, static_cast<long long>(numbers), 1000 * median(alone), median(noise), median(ratio_one),
              median(ratio_eight));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 41;
    const st::World world = st::World::from_environment();
    return world.run("ranks_cost", [&] {
      st::Rng rng(1, 2);
      st::LoadedBatch<st::Image<1>, st::Image<1>> patches;
      patches.input = patches.target = st::Image<1>(16, 40, 40);
      rng.fill_normal(patches.input.span(), 0, 1);
      measure<st::networks::DnCNN<1, 64, 17>>("DnCNN-17x64, 16 patches of 40 x 40", world, patches, st::MSELoss(),
                                              rounds);
      st::LoadedBatch<st::Image<3>, st::Tensor<st::Label>> pictures;
      pictures.input = st::Image<3>(16, 32, 32);
      rng.fill_normal(pictures.input.span(), 0, 1);
      pictures.target = st::Tensor<st::Label>::zeros({16});
      measure<st::networks::ResNet18<10, st::networks::SmallImageStem>>(
          "ResNet-18, 16 pictures of 32 x 32", world, pictures, st::CrossEntropyLoss(), std::max(1, rounds / 4));
      return 0;
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ranks_cost: %s\n", error.what());
    return 1;
  }
}
