// Losses of adversarial training (Goodfellow et al., 2014): two networks, one that makes images and one that tells them
// from real ones. The logits are what the discriminator gives, one for an image or one for each of its patches.
//
//     const st::GANLoss gan({.mode = st::GANMode::hinge});
//     {                                                        // the discriminator's step
//       st::Train pass;
//       const st::Image<3> fake = generator(infer, noise);
//       const auto of_real = critic(pass, real);
//       const auto of_fake = critic(pass, fake);
//       pass.backward(gan.discriminator(of_real, of_fake));
//     }
//     {                                                        // the generator's; no gradients for the critic wanted
//       st::Train pass;
//       pass.backward(gan.generator(critic(pass, generator(pass, noise))));
//       st::zero_grad(critic);
//     }
//
// They are expressions, so they run wherever the logits are.
#pragma once

#include <concepts>

#include "strata/nn/loss.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class GANMode {
  vanilla,        ///< cross entropy, the generator's not saturating (Goodfellow et al., 2014)
  least_squares,  ///< squares of the distances to 1 and 0 (Mao et al., 2017)
  hinge,          ///< max(0, 1 - real) + max(0, 1 + fake); the generator: -fake (Lim and Ye, 2017)
  wasserstein  ///< fake - real; the generator: -fake (Arjovsky et al., 2017). The discriminator must be kept smooth, as
               ///< by SpectralNorm (nn/spectral_norm.hpp) or by clipping its weights
};

struct GANOptions {
  GANMode mode = GANMode::vanilla;
  /// What logits of real images are told to be, where they are for the discriminator: 0.9 is one-sided label smoothing
  /// (Salimans et al., 2016). For vanilla and least_squares.
  double real_label = 1;
};

/// Means over all logits, as in BasicSR's and pix2pix's losses of these names. discriminator() is the sum of its two
/// parts.
class GANLoss {
 public:
  /// Throws ValueError for a real_label outside (0, 1].
  GANLoss() : GANLoss(GANOptions()) {}
  template <std::same_as<GANOptions> Options = GANOptions>
  explicit GANLoss(Options options) : options_(options) {
    if (!(options_.real_label > 0 && options_.real_label <= 1))
      throw ValueError(concat("GANLoss: real_label is ", options_.real_label, ", wanted (0, 1]"));
  }

  /// Of the discriminator, from its logits for real and for made images.
  template <detail::variable_operand R, detail::variable_operand F>
  auto discriminator(const R& real, const F& fake) const {
    const double label = options_.real_label;
    switch (options_.mode) {
      case GANMode::vanilla: {
        const auto of_real = mean((1 - label) * real + softplus(-real));
        return of_real + mean(softplus(fake));
      }
      case GANMode::least_squares: {
        const auto of_real = mean(square(real - label));
        return of_real + mean(square(fake));
      }
      case GANMode::hinge: {
        const auto of_real = mean(relu(1 - real));
        return of_real + mean(relu(1 + fake));
      }
      case GANMode::wasserstein:
        break;
    }
    const auto of_real = mean(-real);
    return of_real + mean(fake);
  }

  /// Of the generator, from the discriminator's logits for what it made.
  template <detail::variable_operand F>
  auto generator(const F& fake) const {
    switch (options_.mode) {
      case GANMode::vanilla:
        return mean(softplus(-fake));
      case GANMode::least_squares:
        return mean(square(fake - 1));
      case GANMode::hinge:
      case GANMode::wasserstein:
        break;
    }
    return mean(-fake);
  }

 private:
  /// log(1 + e^x), which overflows for no x: cross entropy of sigmoid(x) with the label 0.
  static auto softplus(const auto& x) { return log(1 + exp(-abs(x))) + maximum(x, 0); }

  GANOptions options_;
};

}}  // namespace strata::STRATA_ABI
