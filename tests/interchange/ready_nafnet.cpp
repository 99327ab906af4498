#include "ready.hpp"
#include "strata/networks/nafnet.hpp"

namespace ready {

bool check_nafnet(const fs::path& folder, std::string_view name) {
  if (name == "nafnet") return check<st::networks::NAFNet<32>>(folder, "nafnet", {64, 64, 0}), true;
  return false;
}

}  // namespace ready
