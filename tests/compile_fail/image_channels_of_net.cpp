// expect: an image with the wrong number of channels
// expect-context: image_fits<
// expect-context: 3, 1>
#include "strata/nn/conv2d.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

st::Sequential<st::Conv2d<1, 64>, st::ReLU> net;

int main() {
  st::Infer pass;
#ifdef FAIL
  const st::Image<3> image(1, 8, 8);
#else
  const st::Image<1> image(1, 8, 8);
#endif
  const auto y = net(pass, image);
  return int(y.value().n());
}
