// The options --device of a program, cpu, cuda or cuda:N, and --precision.
#pragma once

#include <CLI/CLI.hpp>

#include <cstdio>
#include <map>
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

inline std::string name_of(st::Precision precision) {
  switch (precision) {
    case st::Precision::fp32:
      return "fp32";
    case st::Precision::tf32:
      return "tf32";
    case st::Precision::bf16:
      return "bf16";
    case st::Precision::fp16:
      return "fp16";
  }
  return "unknown";
}
/// Whether there is one of that name, which `precision` then is.
inline bool find_precision(const std::string& name, st::Precision& precision) {
  for (const st::Precision known : {st::Precision::fp32, st::Precision::tf32, st::Precision::bf16, st::Precision::fp16})
    if (name_of(known) == name) {
      precision = known;
      return true;
    }
  return false;
}

inline void add_precision(CLI::App& app, st::Precision& precision) {
  app.add_option("--precision", precision,
                 "what convolutions multiply in; the cpu knows fp32 and, with AVX512-BF16, bf16")
      ->transform(CLI::CheckedTransformer(std::map<std::string, st::Precision>{{"fp32", st::Precision::fp32},
                                                                               {"tf32", st::Precision::tf32},
                                                                               {"bf16", st::Precision::bf16},
                                                                               {"fp16", st::Precision::fp16}}))
      ->default_str("fp32");
}

}  // namespace device
