// DnCNN, a residual network that predicts the noise of an image (Zhang, Zuo, Chen, Meng and Zhang: "Beyond a Gaussian Denoiser:
// Residual Learning of Deep CNN for Image Denoising", IEEE Transactions on Image Processing, 2017).
//
//     st::networks::DnCNN<1> net;                           // what examples/dncnn trains: batch norm in the middle layers
//     st::networks::KairDnCNN<1> published;                 // dncnn_25.pth
//     st::networks::KairDnCNN<3, 20>                        // dncnn_color_blind.pth
//
// KairDnCNN has KAIR's names (model.0 ...), for published weights with batch norm folded into the convolutions. The images are
// in [0, 1]. Grey, 17 layers: 556 096 parameters with batch norm, 555 137 as published, 0.55 million multiply-adds for each pixel,
// receptive field 35.
#pragma once

#include <ratio>

#include "strata/networks/building.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

// The authors' batch norm uses eps = 1e-4.
template <int Width>
using DnCNNBlock = Sequential<Conv2d<Width, Width, 3, no_bias>, BatchNorm2d<Width, std::ratio<1, 10000>>, ReLU>;

/// The network that is trained: y = x - f(x), with batch norm in the middle layers.
template <int Channels = 1, int Width = 64, int Depth = 17>
using DnCNN = Residual<Sequential<                      //
    Conv2d<Channels, Width>, ReLU,                      //
    Repeat<Depth - 2, DnCNNBlock<Width>>,               //
    Conv2d<Width, Channels, 3, no_bias>>>;

/// The same without batch norm, for weights in which it is folded into the convolutions.
template <int Channels = 1, int Width = 64, int Depth = 17>
using FoldedDnCNN = Residual<Sequential<                //
    Conv2d<Channels, Width>, ReLU,                      //
    Repeat<Depth - 2, Sequential<Conv2d<Width, Width>, ReLU>>,
    Conv2d<Width, Channels>>>;

/// The latter with KAIR's names.
template <int Channels = 1, int Depth = Channels == 1 ? 17 : 20, int Width = 64>
class KairDnCNN : public Layer<KairDnCNN<Channels, Depth, Width>> {
 public:
  using io = maps<Channels, Channels>;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Unrolled<Conv2d<Channels, Width>, ReLU, Repeat<Depth - 2, Sequential<Conv2d<Width, Width>, ReLU>>, Conv2d<Width, Channels>> model;

  static constexpr void visit(auto& self, auto&& f) { f("model", self.model); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return as_var(x - self.model(pass, x));
  }
};

static_assert(parameter_count<DnCNN<1>> == 556096);
static_assert(parameter_count<KairDnCNN<1>> == 555137);

}  // namespace strata::inline STRATA_ABI::networks
