// expect: an even Kernel cannot keep the image's size: give a padding
#include "strata/nn/depthwise_conv2d.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
st::Sequential<st::DepthwiseConv2d<8, 4>> net;
#else
st::Sequential<st::DepthwiseConv2d<8, 4, st::Conv2dOptions{.stride = 2, .padding = 1}>> net;
#endif
