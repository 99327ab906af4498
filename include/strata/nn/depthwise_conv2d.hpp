// DepthwiseConv2d, which is a Conv2d with as many groups as channels: see nn/conv2d.hpp.
#pragma once

#include "strata/nn/conv2d.hpp"
