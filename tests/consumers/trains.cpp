// A program that takes what is no template, and the kernels, from files of their own.
#include <strata/strata.hpp>

#include <cstdio>

#if !defined(STRATA_COMPILED) || !defined(STRATA_COMPILED_KERNELS)
#error "strata::compiled has not told the program what is compiled elsewhere"
#endif

int main() {
  strata::Sequential<strata::Conv2d<1, 8>, strata::BatchNorm2d<8>, strata::ReLU, strata::Conv2d<8, 1>> net;
  strata::Adam adam(net, {.lr = 0.01});
  const auto x = strata::Image<1>::full(2, 16, 16, 0.5f);
  float first = 0, last = 0;
  for (int step = 0; step < 20; ++step) {
    strata::Train pass;
    const auto loss = strata::MSELoss()(net(pass, x), x);
    adam.zero_grad();
    pass.backward(loss);
    adam.step();
    (step == 0 ? first : last) = loss.item();
  }
  std::printf("loss %g, then %g\n", double(first), double(last));
  strata::save_weights("trains.safetensors", net);
  return last < first && strata::load_weights("trains.safetensors", net).notes.empty() ? 0 : 1;
}
