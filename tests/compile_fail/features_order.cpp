// expect: wants numbers of the network's layers, from 0, one after another
#include "strata/nn/conv2d.hpp"
#include "strata/nn/losses/perceptual.hpp"
#include "strata/nn/relu.hpp"

namespace st = strata;

using Net = st::Sequential<st::Conv2d<3, 4>, st::ReLU, st::Conv2d<4, 4>>;

int main() {
  st::Infer pass;
#ifdef FAIL
  st::Features<Net, 2, 1> features;
#else
  st::Features<Net, 1, 2> features;
#endif
  return sizeof(features) == 0;
}
