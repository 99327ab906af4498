// expect: groups must divide both channel counts, In and Out
#include "strata/nn/conv2d.hpp"

namespace st = strata;

#ifdef FAIL
st::Conv2d<8, 6, 3, st::Conv2dOptions{.groups = 4}> conv;
#else
st::Conv2d<8, 4, 3, st::Conv2dOptions{.groups = 4}> conv;
#endif
