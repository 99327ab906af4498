// expect: strata::Repeat<N, M>: M must give as many channels as it takes
// expect-context: Conv2d<8, 16
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
using Block = st::Sequential<st::Conv2d<8, 16>, st::ReLU>;
#else
using Block = st::Sequential<st::Conv2d<8, 8>, st::ReLU>;
#endif
st::Sequential<st::Conv2d<1, 8>, st::Repeat<3, Block>> net;

int main() {
  st::Infer pass;
  return int(net(pass, st::Image<1>::full(1, 8, 8, 0.5f)).n());
}
