// expect: strata::Subtract<Body>: Body must give as many channels as it takes
// expect-context: Conv2d<64, 3
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
using Body = st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::Conv2d<64, 3>>;
#else
using Body = st::Sequential<st::Conv2d<1, 64>, st::ReLU, st::Conv2d<64, 1>>;
#endif
st::Residual<Body> net;

int main() {
  st::Train pass;
  return int(st::as_var(net(pass, st::Image<1>::full(1, 8, 8, 0.5f))).n());
}
