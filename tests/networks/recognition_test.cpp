// Small ready networks for classification, segmentation and making images, against PyTorch's.
#include "against_original.hpp"
#include "strata/networks/dcgan.hpp"
#include "strata/networks/resnet.hpp"
#include "strata/networks/unet.hpp"

using namespace strata::networks;
using networks_test::compare;

TEST_CASE("U-Net") { compare<UNet<3, 2, 8>>("unet", 32, 16); }
TEST_CASE("DCGAN") {
  compare<DCGANGenerator<12, 4>>("dcgan_generator", 1, 1);
  compare<DCGANDiscriminator<4>>("dcgan_discriminator", 64, 64);
}
TEST_CASE("ResNet-18") { compare<ResNet18<5>>("resnet18", 37, 21); }

TEST_CASE("an image that does not suit a U-Net is an error in one sentence") {
  strata::Infer pass;
  const UNet<3, 2, 4> net;
  CHECK_THROWS_AS(net(pass, strata::Image<3>(1, 24, 32)), strata::ShapeError);
}
