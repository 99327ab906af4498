// A module of your own: two scales with a skip between them, written as plain C++. Learns to remove noise from stripes.
#include <cmath>
#include <cstdio>

#include "strata/strata.hpp"

namespace st = strata;

template <int Width>
struct TwoScales {
  using io = st::maps<1, 1>;  // one channel in, one out: neighbours are checked against it

  st::Sequential<st::Conv2d<1, Width>, st::ReLU> fine;
  st::Sequential<st::AvgPool2d<2>, st::Conv2d<Width, 2 * Width>, st::ReLU,  // half the size
                 st::Conv2d<2 * Width, 4 * Width>, st::PixelShuffle<4 * Width, 2>> coarse;
  st::Conv2d<2 * Width, 1> join;

  // The one list of members: parameters, gradients, checkpoint names and the summary follow from it. The compiler
  // complains when one is forgotten or named twice.
  static constexpr void visit(auto& self, auto&& f) {
    f("fine", self.fine);
    f("coarse", self.coarse);
    f("join", self.join);
  }

  // Ordinary C++: branches and loops are welcome. Works for training and inference, float and double.
  template <st::Pass P>
  auto operator()(P& pass, const auto& x) {
    const auto a = fine(pass, x);
    const auto b = coarse(pass, a);
    return x - join(pass, st::cat(pass, a, b));
  }
};

// Stripes of random direction and width, under noise.
struct Stripes {
  std::size_t size() const { return 512; }
  st::Sample<1> get(std::size_t, st::Rng& rng) const {
    const float angle = rng.uniform(0, 3.14159f), frequency = rng.uniform(0.2f, 0.8f), phase = rng.uniform(0, 6.28f);
    st::Image<1> clean(1, 24, 24), noisy(1, 24, 24);
    for (int y = 0; y < 24; ++y)
      for (int x = 0; x < 24; ++x) {
        const float along = std::cos(angle) * float(x) + std::sin(angle) * float(y);
        clean(0, 0, y, x) = 0.5f + 0.4f * std::sin(frequency * along + phase);
        noisy(0, 0, y, x) = clean(0, 0, y, x) + 0.1f * rng.normal();
      }
    return {noisy, clean};
  }
};

int main() {
  TwoScales<8> net;
  st::initialize(net, /*seed=*/1);
  std::printf("%s", st::summary(net, {.height = 24, .width = 24}).c_str());

  st::Adam adam(net, {.lr = 3e-3});
  const st::MSELoss mse;
  const Stripes stripes;
  const st::DataLoader loader(stripes, {.batch_size = 16, .seed = 1});
  double first = 0, last = 0;
  for (int epoch = 0; epoch < 4; ++epoch) {
    st::AverageMeter mean_loss;
    for (const auto& [noisy, clean] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = mse(net(pass, noisy), clean);
      adam.zero_grad();
      pass.backward(loss);
      adam.step();
      mean_loss.add(loss.item());
    }
    (epoch == 0 ? first : last) = mean_loss.mean();
    std::printf("epoch %d  loss %.5f\n", epoch + 1, mean_loss.mean());
  }
  return last < 0.5 * 0.01 && last < first ? 0 : 1;  // 0.01 is the error of the noisy input
}
