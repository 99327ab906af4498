// expect: want a layer with a weight: a convolution or Linear
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/spectral_norm.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  return int(sizeof(st::SpectralNorm<st::ReLU>));
#else
  return int(sizeof(st::SpectralNorm<st::Conv2d<1, 1>>) == 0);
#endif
}
