// expect: padding must be 0 or more, or Conv2dOptions::same
#include "strata/nn/conv2d.hpp"

namespace st = strata;

#ifdef FAIL
st::Conv2d<1, 8, 3, st::Conv2dOptions{.padding = -2}> conv;
#else
st::Conv2d<1, 8, 3, st::Conv2dOptions{.padding = 2}> conv;
#endif
