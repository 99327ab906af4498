// Small ready networks for restoration, against PyTorch's.
#include "against_original.hpp"
#include "strata/networks/dncnn.hpp"
#include "strata/networks/drunet.hpp"
#include "strata/networks/edsr.hpp"
#include "strata/networks/ffdnet.hpp"
#include "strata/networks/nafnet.hpp"
#include "strata/networks/rcan.hpp"
#include "strata/networks/srvgg.hpp"

using namespace strata::networks;
using networks_test::compare;

TEST_CASE("EDSR") { compare<EDSR<2, 8, 2>>("edsr", 9, 7); }
TEST_CASE("SRVGGNetCompact") { compare<SRVGGNetCompact<2, 2, 8>>("srvgg", 9, 7); }
TEST_CASE("RCAN") { compare<RCAN<3, 16, 1, 2, 4>>("rcan", 9, 7); }
TEST_CASE("DnCNN") { compare<KairDnCNN<1, 4, 8>>("dncnn", 9, 7); }
TEST_CASE("FFDNet") { compare<FFDNet<1, 8, 4>>("ffdnet", 10, 6); }
TEST_CASE("DRUNet") { compare<DRUNet<1, 8, 1>>("drunet", 16, 8); }
TEST_CASE("NAFNet") { compare<NAFNet<8, NAFNetBlocks{{1, 1, 1, 2}, 1, {1, 1, 1, 1}}>>("nafnet", 32, 16); }

TEST_CASE("an image that does not suit a network is an error in one sentence") {
  strata::Infer pass;
  const DRUNet<1, 8, 1> net;
  CHECK_THROWS_AS(net(pass, strata::Image<2>(1, 12, 8)), strata::ShapeError);
}
