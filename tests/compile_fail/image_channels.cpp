// expect: the number of channels C must be positive
#include "strata/tensor/image.hpp"

#ifdef FAIL
strata::Image<0> image;
#else
strata::Image<1> image;
#endif
