// expect: strata::Conv2d: padding must be 0 or more, or Conv2dOptions::same
#include "strata/nn/depthwise_conv2d.hpp"

namespace st = strata;

#ifdef FAIL
st::DepthwiseConv2d<8, 3, st::Conv2dOptions{.padding = -2}> conv;
#else
st::DepthwiseConv2d<8, 3, st::Conv2dOptions{.padding = 2}> conv;
#endif
