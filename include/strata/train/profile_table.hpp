// The rows of a profile (train/profile.hpp) as text, and for a run's report.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "strata/nn/summary.hpp"
#include "strata/train/machine_peak.hpp"
#include "strata/train/report.hpp"

namespace strata { inline namespace STRATA_ABI {

/// What a profile knows of a layer, or of a module besides its layers.
struct ProfileRow {
  std::string name = {};    ///< as in the network's files; "-" for one that no visit lists
  std::string layer = {};   ///< its type, and those that run with it
  std::string output = {};  ///< extents; empty where they are not known
  std::int64_t calls = 0;
  double forward_seconds = 0, backward_seconds = 0;                                               ///< of all calls
  double forward_operations = 0, backward_operations = 0, forward_bytes = 0, backward_bytes = 0;  ///< of one call

  double seconds() const { return forward_seconds + backward_seconds; }
};

namespace detail {

/// A heading and a line for each row. Milliseconds are those of a call of the network, of which there were `calls`.
inline std::vector<std::vector<std::string>> profile_cells(const std::vector<ProfileRow>& rows, std::int64_t calls,
                                                           const MachinePeak& peak) {
  const auto number = [](double value, int digits) {
    char text[40];
    std::snprintf(text, sizeof text, "%.*f", digits, value);
    return std::string(text);
  };
  double all = 0, back = 0;
  for (const ProfileRow& row : rows) all += row.seconds(), back += row.backward_seconds;
  const double times = double(std::max<std::int64_t>(calls, 1));
  const bool knows_peak = peak.gflops > 0 && peak.gbytes > 0;
  std::vector<std::string> heading{"name", "layer", "output", "share", "forward ms", "GFLOP/s", "MB"};
  if (knows_peak) heading.push_back("of peak");
  if (back > 0) heading.insert(heading.end(), {"backward ms", "GFLOP/s", "MB"});
  if (back > 0 && knows_peak) heading.push_back("of peak");
  std::vector<std::vector<std::string>> table{heading};
  for (const ProfileRow& row : rows) {
    std::vector<std::string> line{row.name, row.layer, row.output,
                                  all > 0 ? number(100 * row.seconds() / all, 1) + " %" : ""};
    const auto add = [&](double seconds, double operations, double bytes) {
      const double each = row.calls > 0 ? seconds / double(row.calls) : 0;
      line.push_back(number(1e3 * seconds / times, 3));
      line.push_back(each > 0 && operations > 0 ? number(operations / each * 1e-9, 1) : "");
      const bool works = each >= 1e-6;  // in less, a layer has given its input back
      line.push_back(bytes > 0 && works ? number(bytes * double(row.calls) / times * 1e-6, 2) : "");
      if (!knows_peak) return;
      const double least = std::max(operations / peak.gflops, bytes / peak.gbytes) * 1e-9;
      line.push_back(bytes > 0 && works ? number(100 * least / each, 0) + " %" : "");
    };
    add(row.forward_seconds, row.forward_operations, row.forward_bytes);
    if (back > 0) add(row.backward_seconds, row.backward_operations, row.backward_seconds > 0 ? row.backward_bytes : 0);
    table.push_back(std::move(line));
  }
  return table;
}

inline std::string profile_total(const std::vector<ProfileRow>& rows, std::int64_t calls, const MachinePeak& peak) {
  double forward = 0, backward = 0;
  for (const ProfileRow& row : rows) forward += row.forward_seconds, backward += row.backward_seconds;
  const double times = double(std::max<std::int64_t>(calls, 1));
  char text[240];
  std::snprintf(text, sizeof text, "total: forward %.3f ms, backward %.3f ms; mean of %lld passes",
                1e3 * forward / times, 1e3 * backward / times, static_cast<long long>(calls));
  std::string line = text;
  if (peak.gflops > 0 && peak.gbytes > 0) {
    std::snprintf(text, sizeof text, "; the peak is %.0f GFLOP/s and %.1f GB/s", peak.gflops, peak.gbytes);
    line += text;
  }
  return line;
}

inline std::string profile_text(const std::vector<ProfileRow>& rows, std::int64_t calls, const MachinePeak& peak) {
  return aligned_text(profile_cells(rows, calls, peak), 3) + profile_total(rows, calls, peak) + "\n";
}

inline LayerTable profile_layers(const std::vector<ProfileRow>& rows, std::int64_t calls, const MachinePeak& peak) {
  LayerTable table;
  table.rows = profile_cells(rows, calls, peak);
  table.columns = table.rows.front();
  table.rows.erase(table.rows.begin());
  table.total = profile_total(rows, calls, peak);
  return table;
}

}  // namespace detail
}}  // namespace strata::STRATA_ABI
