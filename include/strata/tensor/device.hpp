// Where a tensor's memory is: the host's memory, or one accelerator's.
//
//     st::Device device = st::parse_device("cuda:1");
#pragma once

#include <charconv>
#include <string>
#include <string_view>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

enum class DeviceKind { cpu, cuda };

struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;

  static constexpr Device cpu() { return {}; }
  static constexpr Device cuda(int index = 0) { return {DeviceKind::cuda, index}; }

  friend constexpr bool operator==(const Device&, const Device&) = default;

  /// "cpu" or "cuda:0".
  std::string str() const { return kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(index); }
};

/// "cpu", "cuda" or "cuda:N". Throws ValueError for anything else. Does not look whether the device is there.
inline Device parse_device(std::string_view text) {
  if (text == "cpu") return Device::cpu();
  if (text == "cuda") return Device::cuda();
  if (text.starts_with("cuda:")) {
    int index = -1;
    const auto [end, failure] = std::from_chars(text.data() + 5, text.data() + text.size(), index);
    if (failure == std::errc{} && end == text.data() + text.size() && index >= 0) return Device::cuda(index);
  }
  throw ValueError(concat("device '", text, "': wanted cpu, cuda or cuda:N"));
}

}}  // namespace strata::STRATA_ABI
