// DCGAN, images of 64 x 64 from noise (Radford, Metz and Chintala: "Unsupervised Representation Learning with Deep
// Convolutional Generative Adversarial Networks", ICLR 2016), as in PyTorch's examples.
//
//     st::networks::DCGANGenerator<> generator;                // 100 numbers for an image become RGB from -1 to 1
//     st::networks::DCGANDiscriminator<> discriminator;        // an image of 64 x 64 becomes a logit
//     st::initialize(generator, seed, st::Normal{.std = 0.02f});
//     st::load_weights("netG_epoch_24.pth", generator);
//
// Names as there (main.0, main.1, ...). The discriminator there ends in a sigmoid, which holds no weights; here losses
// take the logit (nn/losses/adversarial.hpp). Parameters: 3 576 704 and 2 765 568; multiply-adds for an image: 105
// and 104 million.
#pragma once

#include <ratio>

#include "strata/networks/building.hpp"
#include "strata/nn/activation.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace strata { inline namespace STRATA_ABI { namespace networks {

/// Latent numbers for each image, as channels of one pixel, become an image of 64 x 64.
template <int Latent = 100, int Width = 64, int Channels = 3, template <class> class Form = as_trained>
class DCGANGenerator : public Layer<DCGANGenerator<Latent, Width, Channels, Form>> {
  static constexpr ConvTranspose2dOptions from_one_pixel{.stride = 1, .padding = 0, .bias = false},
      twice_as_large{.stride = 2, .padding = 1, .bias = false};

 public:
  using io = maps<Latent, Channels>;
  static constexpr bool has_state = true;

  Form<Sequential<ConvTranspose2d<Latent, 8 * Width, 4, from_one_pixel>, BatchNorm2d<8 * Width>, ReLU,
                  ConvTranspose2d<8 * Width, 4 * Width, 4, twice_as_large>, BatchNorm2d<4 * Width>, ReLU,
                  ConvTranspose2d<4 * Width, 2 * Width, 4, twice_as_large>, BatchNorm2d<2 * Width>, ReLU,
                  ConvTranspose2d<2 * Width, Width, 4, twice_as_large>, BatchNorm2d<Width>, ReLU,
                  ConvTranspose2d<Width, Channels, 4, twice_as_large>, Tanh>>
      main;

  static constexpr void visit(auto& self, auto&& f) { f("main", self.main); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.main(pass, x);
  }
  auto fold() const {
    DCGANGenerator<Latent, Width, Channels, deploy_t> folded;
    folded.main = strata::fold(main);
    return folded;
  }
};

/// The logit that an image of 64 x 64, from -1 to 1, is a real one.
template <int Width = 64, int Channels = 3, template <class> class Form = as_trained>
class DCGANDiscriminator : public Layer<DCGANDiscriminator<Width, Channels, Form>> {
  static constexpr Conv2dOptions half_as_large{.stride = 2, .padding = 1, .bias = false},
      to_one_pixel{.stride = 1, .padding = 0, .bias = false};
  using Leaky = LeakyReLUOf<std::ratio<1, 5>>;

 public:
  using io = maps<Channels, 1>;
  static constexpr bool has_state = true;

  Form<Sequential<Conv2d<Channels, Width, 4, half_as_large>, Leaky,
                  Conv2d<Width, 2 * Width, 4, half_as_large>, BatchNorm2d<2 * Width>, Leaky,
                  Conv2d<2 * Width, 4 * Width, 4, half_as_large>, BatchNorm2d<4 * Width>, Leaky,
                  Conv2d<4 * Width, 8 * Width, 4, half_as_large>, BatchNorm2d<8 * Width>, Leaky,
                  Conv2d<8 * Width, 1, 4, to_one_pixel>>>
      main;

  static constexpr void visit(auto& self, auto&& f) { f("main", self.main); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.main(pass, x);
  }
  auto fold() const {
    DCGANDiscriminator<Width, Channels, deploy_t> folded;
    folded.main = strata::fold(main);
    return folded;
  }
};

static_assert(parameter_count<DCGANGenerator<>> == 3576704);
static_assert(parameter_count<DCGANDiscriminator<>> == 2765568);

}}}  // namespace strata::STRATA_ABI::networks
