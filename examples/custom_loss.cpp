// A loss of your own is a line of arithmetic; its gradient follows. Here: when some targets are plainly wrong (dead
// pixels), a loss with heavy tails learns the right filter where the squared error does not.
#include <cmath>
#include <cstdio>

#include "strata/strata.hpp"

namespace st = strata;

// Geman and McClure's: d^2 / (d^2 + s^2), flat far from zero, so that outliers pull no more than their share.
auto geman_mcclure(const auto& prediction, const auto& target) {
  const auto d = square(prediction - target);
  return mean(d / (d + 0.02f));
}

struct BrokenTargets {  // the task: pass the image through; one target pixel in five is stuck at 1
  std::size_t size() const { return 256; }
  st::Sample<1> get(std::size_t, st::Rng& rng) const {
    st::Image<1> input(1, 12, 12), target(1, 12, 12);
    for (std::int64_t i = 0; i < input.size(); ++i) {
      input.data()[i] = rng.uniform(0, 0.5f);
      target.data()[i] = rng.below(5) == 0 ? 1.0f : input.data()[i];
    }
    return {input, target};
  }
};

/// The error on clean targets after training with `loss`.
double train(const char* name, auto loss_of) {
  st::Sequential<st::Conv2d<1, 4>, st::LeakyReLU, st::Conv2d<4, 1>> net;
  st::initialize(net, /*seed=*/3);
  st::Adam adam(net, {.lr = 1e-2});
  const BrokenTargets data;
  const st::DataLoader loader(data, {.batch_size = 16});
  for (int epoch = 0; epoch < 8; ++epoch)
    for (const auto& [input, target] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = loss_of(net(pass, input), target);
      adam.zero_grad();
      pass.backward(loss);
      adam.step();
    }
  st::Rng rng(9);
  const auto [input, unused] = data.get(0, rng);
  st::Infer pass;
  const double error = std::sqrt(mean(square(net(pass, input) - input)).item());
  std::printf("%-16s error on clean pixels %.4f\n", name, error);
  return error;
}

int main() {
  const double squared = train("squared error", st::MSELoss());
  const double robust = train("geman-mcclure", [](const auto& p, const auto& t) { return geman_mcclure(p, t); });
  return robust < 0.5 * squared ? 0 : 1;
}
