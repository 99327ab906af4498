#include <ratio>

#include "ready.hpp"
#include "strata/networks/mobilenet_v2.hpp"

namespace ready {

/// Without dropout, whose random numbers are not PyTorch's.
bool check_mobilenet(const fs::path& folder, std::string_view name) {
  using Net = st::networks::MobileNetV2<1000, st::DropoutOf<std::ratio<0>>>;
  if (name == "mobilenet_v2") return check<Net>(folder, "mobilenet_v2", {64, 64, 0}), true;
  return false;
}

}  // namespace ready
