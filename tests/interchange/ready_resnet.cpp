#include "ready.hpp"
#include "strata/networks/resnet.hpp"

namespace ready {

bool check_resnet(const fs::path& folder, std::string_view name) {
  using namespace st::networks;
  if (name == "resnet18") return check<ResNet18<>>(folder, "resnet18", {64, 64, 0}), true;
  if (name == "resnet50") return check<ResNet50<>>(folder, "resnet50", {64, 64, 0}), true;
  return false;
}

}  // namespace ready
