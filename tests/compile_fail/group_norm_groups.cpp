// expect: Channels must be a multiple of Groups
#include "strata/nn/group_norm.hpp"

namespace st = strata;

#ifdef FAIL
st::GroupNorm<3, 8> norm;
#else
st::GroupNorm<4, 8> norm;
#endif
