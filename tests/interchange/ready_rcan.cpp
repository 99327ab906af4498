#include "ready.hpp"
#include "strata/networks/rcan.hpp"

namespace ready {

bool check_rcan(const fs::path& folder, std::string_view name) {
  if (name == "rcan") return check<st::networks::RCAN<3, 64, 2, 3>>(folder, "rcan", {64, 64, 0}), true;
  return false;
}

}  // namespace ready
