// What a dataset gives and what a network is trained on: an input and the target for it.
//
//     st::Sample<1> sample{noisy, clean};           // two grey images
//     auto& [input, target] = sample;
#pragma once

#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

template <class Input, class Target>
struct Pair {
  Input input;
  Target target;
};

/// An image and the image it should become.
template <int C>
using Sample = Pair<Image<C>, Image<C>>;

/// An image and the number of its class.
template <int C>
using LabelledSample = Pair<Image<C>, Label>;

}  // namespace strata::inline STRATA_ABI
