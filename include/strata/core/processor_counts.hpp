// What the system says of the processors of this process: its affinity mask, and the quotas of its control groups.
// Programs use core/processors.hpp.
#pragma once

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "strata/core/config.hpp"

#if defined(__linux__)
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>
#endif

namespace strata::inline STRATA_ABI::detail {

inline constexpr double no_quota = std::numeric_limits<double>::infinity();

/// The processors of an affinity mask, which get(bytes, mask) writes as sched_getaffinity does: it fails with EINVAL
/// while the mask is shorter than the system's, which knows no limit of 1024. 0: it cannot be told.
template <class Get>
int affinity_processors(Get&& get) {
  constexpr std::size_t word = sizeof(unsigned long), most = std::size_t{1} << 17;  // a million processors
  for (std::size_t bytes = 128; bytes <= most; bytes *= 2) {
    std::vector<unsigned long> mask(bytes / word);
    if (get(bytes, mask.data())) {
      int count = 0;
      for (const unsigned long bits : mask) count += std::popcount(bits);
      return count;
    }
    if (errno != EINVAL) return 0;
  }
  return 0;
}

inline int affinity_processors() {
#if defined(__linux__)
  return affinity_processors([](std::size_t bytes, unsigned long* mask) {
    return sched_getaffinity(0, bytes, reinterpret_cast<cpu_set_t*>(mask)) == 0;
  });
#else
  return int(std::thread::hardware_concurrency());
#endif
}

/// The first bytes of a file, nothing where it cannot be read. It never waits, whatever kind of file it is.
inline std::string beginning_of_file([[maybe_unused]] const std::string& path, [[maybe_unused]] std::size_t most) {
  std::string text;
#if defined(__linux__)
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (file < 0) return text;
  char part[4096];
  while (text.size() < most) {
    const auto got = ::read(file, part, std::min(sizeof part, most - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(part, std::size_t(got));
  }
  ::close(file);
#endif
  return text;
}

/// Cuts `text` before the first `end` and returns what stood before it.
inline std::string_view cut(std::string_view& text, char end) {
  const std::size_t at = text.find(end);
  const std::string_view part = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view{} : text.substr(at + 1);
  return part;
}

/// A whole number above 0, which may be larger than any integer; 0 for every other text.
inline double positive_number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || end != text.data() + text.size() || text.front() == '-') return 0;
  return error == std::errc() ? double(number) : error == std::errc::result_out_of_range ? no_quota : 0;
}

/// Processors that `quota` microseconds in each `period` are worth. Whatever makes no sense is no quota.
inline double quota_processors(std::string_view quota, std::string_view period) {
  const double used = positive_number(quota), of = positive_number(period);
  return used > 0 && of > 0 && std::isfinite(of) ? used / of : no_quota;
}

/// The quota of one control group: its folder's cpu.max (version 2: "max 100000", "150000 100000"), or cpu.cfs_quota_us
/// and cpu.cfs_period_us (version 1; -1 is none).
inline double folder_quota(const std::string& folder, bool version_2) {
  constexpr std::size_t most = 256;
  if (!version_2)
    return quota_processors(beginning_of_file(folder + "/cpu.cfs_quota_us", most),
                            beginning_of_file(folder + "/cpu.cfs_period_us", most));
  const std::string text = beginning_of_file(folder + "/cpu.max", most);
  std::string_view rest = text;
  std::string_view line = cut(rest, '\n');
  const std::string_view quota = cut(line, ' ');
  return quota_processors(quota, line.empty() ? "100000" : line);
}

/// A path of mountinfo, where blanks and the like are written as \040.
inline std::string unescaped(std::string_view path) {
  std::string out;
  const auto digit = [&](std::size_t at) { return at < path.size() && path[at] >= '0' && path[at] <= '7'; };
  for (std::size_t i = 0; i < path.size(); ++i)
    if (path[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
      out += char((path[i + 1] - '0') * 64 + (path[i + 2] - '0') * 8 + (path[i + 3] - '0'));
      i += 3;
    } else {
      out += path[i];
    }
  return out;
}

/// Whether `item` is in a list with commas.
inline bool listed(std::string_view list, std::string_view item) {
  while (!list.empty())
    if (cut(list, ',') == item) return true;
  return false;
}

/// The folder of `group` below a mount that shows `shown` of the hierarchy at `place`. Where the mount does not show
/// the group, as in containers that see the host's names, it is the mount's own.
inline std::string group_folder(std::string_view group, std::string_view shown, const std::string& place) {
  if (shown == "/") shown = "";
  if (!group.starts_with(shown) || group.find("/..") != std::string_view::npos || group.size() > 4096) return place;
  std::string_view rest = group.substr(shown.size());
  if (!rest.empty() && rest.front() != '/') return place;  // /docker/ab is not above /docker/abc
  while (!rest.empty() && rest.back() == '/') rest.remove_suffix(1);
  return place + std::string(rest);
}

/// The smallest quota of the groups this process is in, and of those above them; infinite where there is none. `root`
/// goes before every path that is read.
inline double cgroup_quota(const std::string& root = "") {
  constexpr std::size_t most = std::size_t{1} << 22;
  std::string group_1, group_2;
  bool in_1 = false, in_2 = false;
  const std::string groups = beginning_of_file(root + "/proc/self/cgroup", most);
  for (std::string_view rest = groups; !rest.empty();) {  // "4:cpu,cpuacct:/path", "0::/path"
    std::string_view line = cut(rest, '\n');
    const std::string_view number = cut(line, ':'), controllers = cut(line, ':');
    if (line.empty() || line.front() != '/') continue;
    if (number == "0" && controllers.empty())
      group_2 = line, in_2 = true;
    else if (listed(controllers, "cpu"))
      group_1 = line, in_1 = true;
  }

  double quota = no_quota;
  const std::string mounts = beginning_of_file(root + "/proc/self/mountinfo", most);
  for (std::string_view rest = mounts;
       !rest.empty();) {  // "36 35 98:0 /shown /place options more - type source options"
    std::string_view line = cut(rest, '\n');
    for (int field = 0; field < 3; ++field) cut(line, ' ');
    const std::string shown = unescaped(cut(line, ' ')), place = unescaped(cut(line, ' '));
    const std::size_t dash = line.find(" - ");
    if (dash == std::string_view::npos || place.empty() || place.front() != '/') continue;
    line.remove_prefix(dash + 3);
    const std::string_view type = cut(line, ' ');
    cut(line, ' ');
    const bool version_2 = type == "cgroup2" && in_2;
    if (!version_2 && !(type == "cgroup" && in_1 && listed(line, "cpu"))) continue;

    const std::string top = place == "/" ? "" : place;
    std::string folder = group_folder(version_2 ? group_2 : group_1, shown, top);
    while (true) {
      quota = std::min(quota, folder_quota(root + folder, version_2));
      if (folder.size() <= top.size()) break;
      folder.resize(folder.rfind('/'));
    }
  }
  return quota;
}

/// Threads that keep so many processors busy: a part of one counts as one, and there is always one.
inline int threads_for(int processors, double quota) {
  constexpr double most = 1024;
  return int(std::max(1.0, std::min({processors > 0 ? double(processors) : 1.0, std::ceil(quota), most})));
}

}  // namespace strata::inline STRATA_ABI::detail
