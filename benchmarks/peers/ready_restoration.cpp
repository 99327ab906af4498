#include "ready.hpp"
#include "strata/networks/drunet.hpp"
#include "strata/networks/edsr.hpp"
#include "strata/networks/nafnet.hpp"

namespace bench {

std::function<void()> ready_restoration(const Request& request) {
  std::function<void()> work;
  take<st::networks::EDSR<2>>(request, "edsr", work);
  take<st::networks::DRUNet<1>>(request, "drunet", work);
  take<st::networks::NAFNet<32>>(request, "nafnet32", work);
  return work;
}

}  // namespace bench
