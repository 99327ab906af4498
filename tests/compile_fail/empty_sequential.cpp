// expect: strata::Sequential<...>: give it at least one module
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

#ifdef FAIL
st::Sequential<> net;
#else
st::Sequential<st::ReLU> net;
#endif
