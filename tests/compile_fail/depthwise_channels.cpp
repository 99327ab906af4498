// expect: wants Wants channels, but Previous before it gives Gives
#include "strata/nn/conv2d.hpp"
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
st::Sequential<st::Conv2d<1, 8>, st::DepthwiseConv2d<16>> net;
#else
st::Sequential<st::Conv2d<1, 8>, st::DepthwiseConv2d<8>> net;
#endif
