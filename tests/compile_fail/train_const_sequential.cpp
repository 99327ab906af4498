// expect: this module is const, and a Train pass changes it
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

using Net = st::Residual<st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Conv2d<8, 1>>>;

int train(
#ifdef FAIL
    const
#endif
    Net& net) {
  st::Train pass;
  const st::Image<1> image = st::Image<1>::full(1, 8, 8, 0.5f);
  const auto loss = mean(square(net(pass, image) - image));
  pass.backward(loss);
  return int(loss.item());
}
