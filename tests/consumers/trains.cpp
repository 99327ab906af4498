// A program that takes the kernels from a file of their own.
#include <strata/strata.hpp>

#include <cstdio>

#ifndef STRATA_COMPILED_KERNELS
#error "strata::kernels has not told the program that its kernels are compiled elsewhere"
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
  return last < first ? 0 : 1;
}
