// DnCNN: a residual network that predicts the noise of an image (Zhang, Zuo, Chen, Meng, Zhang: "Beyond a Gaussian
// Denoiser", IEEE Transactions on Image Processing, 2017).
#pragma once

#include <ratio>

#include "strata/strata.hpp"

namespace st = strata;

namespace dncnn {

// The authors' batch norm uses eps = 1e-4.
template <int Width>
using Block = st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width, std::ratio<1, 10000>>, st::ReLU>;

/// The network that is trained: y = x - f(x), with batch norm in the middle layers.
template <int Channels = 1, int Width = 64, int Depth = 17>
using DnCNN = st::Residual<st::Sequential<              //
    st::Conv2d<Channels, Width>, st::ReLU,              //
    st::Repeat<Depth - 2, Block<Width>>,                //
    st::Conv2d<Width, Channels, 3, st::no_bias>>>;

/// The same without batch norm, for published weights in which it is folded into the convolutions.
template <int Channels = 1, int Width = 64, int Depth = 17>
using FoldedDnCNN = st::Residual<st::Sequential<        //
    st::Conv2d<Channels, Width>, st::ReLU,              //
    st::Repeat<Depth - 2, st::Sequential<st::Conv2d<Width, Width>, st::ReLU>>,
    st::Conv2d<Width, Channels>>>;

}  // namespace dncnn
