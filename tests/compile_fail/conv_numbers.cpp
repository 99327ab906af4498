// expect: a convolution's stride, padding and the like have names and are not numbers one after another
// expect: write st::Conv2d<3, 8, 3, st::Conv2dOptions{.stride = 2, .padding = 1}>
#include "strata/nn/conv2d.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const st::Conv2d<3, 8, 4, 2, 1> conv;  // as torch.nn.Conv2d(3, 8, 4, 2, 1)
#else
  const st::Conv2d<3, 8, 4, st::Conv2dOptions{.stride = 2, .padding = 1}> conv;
#endif
  return conv.stride - 2;
}
