#include "ready.hpp"
#include "strata/networks/dcgan.hpp"
#include "strata/networks/unet.hpp"

namespace bench {

std::function<void()> ready_generators(const Request& request) {
  std::function<void()> work;
  take<st::networks::UNet<3, 2, 32>>(request, "unet", work);
  take<st::networks::DCGANGenerator<>>(request, "dcgan_generator", work);
  take<st::networks::DCGANDiscriminator<>>(request, "dcgan_discriminator", work);
  return work;
}

}  // namespace bench
