// EXPECT: a pooling's padding must be from 0 to half of its window
#include <strata/nn/pooling.hpp>

#ifdef MISTAKE
using Layer = strata::MaxPool2d<3, 2, 2>;
#else
using Layer = strata::MaxPool2d<3, 2, 1>;
#endif

const Layer layer;
