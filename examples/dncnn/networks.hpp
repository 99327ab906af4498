// DnCNN: a residual network that predicts the noise of an image (Zhang, Zuo, Chen, Meng, Zhang: "Beyond a Gaussian
// Denoiser", IEEE Transactions on Image Processing, 2017). It is one of the ready networks.
#pragma once

#include "strata/networks/dncnn.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace dncnn {

/// The network that is trained: y = x - f(x), with batch norm in the middle layers.
template <int Channels = 1, int Width = 64, int Depth = 17>
using DnCNN = st::networks::DnCNN<Channels, Width, Depth>;

/// The same without batch norm, for published weights in which it is folded into the convolutions.
template <int Channels = 1, int Width = 64, int Depth = 17>
using FoldedDnCNN = st::networks::FoldedDnCNN<Channels, Width, Depth>;

}  // namespace dncnn
