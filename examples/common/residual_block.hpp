// A block that adds to what it gets: y = x + conv(relu(conv(x))), as in EDSR (Lim, Son, Kim, Nah and Lee, 2017). Deep
// networks of such blocks train without batch norm.
#pragma once

#include "strata/strata.hpp"

namespace blocks {

namespace st = strata;

template <int Width>
using ResidualBlock = st::Add<st::Sequential<st::Conv2d<Width, Width>, st::ReLU, st::Conv2d<Width, Width>>>;

/// Makes the block the identity: its last convolution gives zeros. Deep networks train faster from there.
template <int Width>
void start_as_identity(ResidualBlock<Width>& block) {
  block.body.template layer<2>().weight.reset();
}

}  // namespace blocks
