#include "ready.hpp"
#include "strata/networks/edsr.hpp"
#include "strata/networks/rrdb.hpp"
#include "strata/networks/srvgg.hpp"

namespace ready {

bool check_super_resolution(const fs::path& folder, std::string_view name) {
  using namespace st::networks;
  if (name == "edsr") return check<EDSR<2>>(folder, "edsr", {184, 24, 96}), true;
  if (name == "srvgg") return check<SRVGGNetCompact<4>>(folder, "srvgg", {120, 24, 32}), true;
  if (name == "rrdb") return check<RRDBNet<4, 2>>(folder, "rrdb", {240, 16, 128}), true;
  return false;
}

}  // namespace ready
