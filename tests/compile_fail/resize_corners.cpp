// expect: corners are aligned by bilinear and bicubic; nearest has none to align
#include "strata/nn/resize.hpp"

namespace st = strata;

#ifdef FAIL
st::Resize<std::ratio<2>, st::InterpolateMode::nearest, true> resize;
#else
st::Resize<std::ratio<2>, st::InterpolateMode::bilinear, true> resize;
#endif
