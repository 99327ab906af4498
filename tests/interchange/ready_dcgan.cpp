#include "ready.hpp"
#include "strata/networks/dcgan.hpp"

namespace ready {

bool check_dcgan(const fs::path& folder, std::string_view name) {
  // Both are for one size, so the image is one tile.
  if (name == "dcgan_generator")
    return check<st::networks::DCGANGenerator<>>(folder, "dcgan_generator", {1, 1, 1}), true;
  if (name == "dcgan_discriminator")
    return check<st::networks::DCGANDiscriminator<>>(folder, "dcgan_discriminator", {64, 64, 64}), true;
  return false;
}

}  // namespace ready
