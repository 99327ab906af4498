// The option --device of a program: cpu, cuda or cuda:N.
#pragma once

#include <cstdio>
#include <string>

#include "strata/strata.hpp"

namespace device {

namespace st = strata;

/// The exit code of a program that was asked for a device which is not there.
inline constexpr int missing = 3;

/// run(device) for the device called `name`; where there is none, one line that says why, and the exit code `missing`.
template <class Run>
int with(const char* program, const std::string& name, Run&& run) {
  const st::Device device = st::parse_device(name);
  if (const std::string reason = st::missing_reason(device); !reason.empty()) {
    std::fprintf(stderr, "%s: %s\n", program, reason.c_str());
    return missing;
  }
  return run(device);
}

}  // namespace device
