// expect: Kernel must be positive
#include "strata/nn/depthwise_conv2d.hpp"

namespace st = strata;

#ifdef FAIL
st::DepthwiseConv2d<4, 0> conv;
#else
st::DepthwiseConv2d<4, 3> conv;
#endif
