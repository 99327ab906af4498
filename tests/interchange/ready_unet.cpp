#include "ready.hpp"
#include "strata/networks/unet.hpp"

namespace ready {

bool check_unet(const fs::path& folder, std::string_view name) {
  if (name == "unet") return check<st::networks::UNet<3, 2, 32>>(folder, "unet", {416, 32, 112}), true;
  return false;
}

}  // namespace ready
