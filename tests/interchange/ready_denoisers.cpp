#include "ready.hpp"
#include "strata/networks/dncnn.hpp"
#include "strata/networks/drunet.hpp"
#include "strata/networks/ffdnet.hpp"

namespace ready {

bool check_denoisers(const fs::path& folder, std::string_view name) {
  using namespace st::networks;
  if (name == "dncnn") return check<KairDnCNN<1>>(folder, "dncnn", {120, 24, 48}), true;
  if (name == "ffdnet") return check<FFDNet<1>>(folder, "ffdnet", {160, 24, 64}), true;
  if (name == "drunet") return check<DRUNet<3>>(folder, "drunet", {512, 16, 128}), true;
  return false;
}

}  // namespace ready
