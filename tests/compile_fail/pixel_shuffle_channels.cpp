// expect: strata::PixelShuffle<In, Factor>: In must be a multiple of Factor * Factor
#include "strata/nn/conv2d.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
using Upscale = st::Sequential<st::Conv2d<1, 10>, st::PixelShuffle<10, 2>>;
#else
using Upscale = st::Sequential<st::Conv2d<1, 12>, st::PixelShuffle<12, 2>>;
#endif
Upscale net;
