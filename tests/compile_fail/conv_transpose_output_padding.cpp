// expect: output_padding must be smaller than the stride
#include "strata/nn/conv_transpose2d.hpp"

namespace st = strata;

#ifdef FAIL
st::ConvTranspose2d<8, 4, 3, st::ConvTranspose2dOptions{.stride = 2, .padding = 1, .output_padding = 2}> conv;
#else
st::ConvTranspose2d<8, 4, 3, st::ConvTranspose2dOptions{.stride = 2, .padding = 1, .output_padding = 1}> conv;
#endif
