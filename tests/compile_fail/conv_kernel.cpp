// expect: strata::Conv2d<In, Out, Kernel>: Kernel must be positive
#include "strata/nn/conv2d.hpp"

namespace st = strata;

#ifdef FAIL
st::Conv2d<1, 8, 0> conv;
#else
st::Conv2d<1, 8, 1> conv;
#endif
