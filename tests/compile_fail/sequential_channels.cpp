// expect: strata::Sequential: channel mismatch
// expect-context: link<2, 
// expect-context: Conv2d<1, 64
// expect-context: BatchNorm2d<32
// expect-context: layer number Layer (from 0), of type Next, wants Wants channels, but Previous before it gives Gives
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
using Net = st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::BatchNorm2d<32>, st::Conv2d<32, 1>>;
#else
using Net = st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::BatchNorm2d<64>, st::Conv2d<64, 1>>;
#endif
st::Residual<Net> net;

int main() {
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
