#include "ready.hpp"
#include "strata/networks/vgg.hpp"

namespace ready {

bool check_vgg(const fs::path& folder, std::string_view name) {
  if (name == "vgg19") return check<st::networks::VGG19Features<>>(folder, "vgg19", {480, 32, 128}), true;
  return false;
}

}  // namespace ready
