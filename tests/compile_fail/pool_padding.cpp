// expect: a pooling's padding must be from 0 to half of its window
#include "strata/nn/pooling.hpp"

namespace st = strata;

#ifdef FAIL
st::MaxPool2d<3, 2, 2> pool;
#else
st::MaxPool2d<3, 2, 1> pool;
#endif
