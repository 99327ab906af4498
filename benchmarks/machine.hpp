// What the processor can do beside st::measure_peak(): the way from one core to another. Printed beside every result,
// since absolute times mean nothing without them.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <thread>
#include <vector>

#include "strata/train/machine_peak.hpp"

namespace bench {

namespace st = strata;

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Nanoseconds until a thread on another core sees what this one wrote: half of a round trip; the median of many. Not a
/// number on one core.
inline double core_to_core_nanoseconds() {
  if (std::thread::hardware_concurrency() < 2) return std::numeric_limits<double>::quiet_NaN();
  constexpr int rounds = 2000, repeats = 31;
  alignas(64) std::atomic<int> ping{0};
  alignas(64) std::atomic<int> pong{0};
  std::thread other([&] {
    for (int i = 1; i <= rounds * repeats; ++i) {
      while (ping.load(std::memory_order_acquire) != i) {}
      pong.store(i, std::memory_order_release);
    }
  });
  std::vector<double> times;
  for (int repeat = 0, i = 0; repeat < repeats; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int round = 0; round < rounds; ++round) {
      ping.store(++i, std::memory_order_release);
      while (pong.load(std::memory_order_acquire) != i) {}
    }
    times.push_back(1e9 * seconds_since(start) / (2 * rounds));
  }
  other.join();
  std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
  return times[repeats / 2];
}

}  // namespace bench
