// What the processor can do: fused multiply-adds, copying, and the way from one core to another. Printed beside every
// result, since absolute times mean nothing without them.
//
//     double peak = bench::peak_gflops();        // on st::num_threads() threads
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"

namespace bench {

namespace st = strata;

inline double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

namespace detail {

using V = st::simd::Vector<float>;
inline constexpr int chains = 12;  // independent sums, more than latency x multipliers of any core so far

// noinline: the sums must start from numbers that the compiler does not know.
[[gnu::noinline]] inline float multiply_add_chains(float factor, float term, std::int64_t rounds) {
  const V a = st::simd::broadcast<V>(factor), b = st::simd::broadcast<V>(term);
  V sums[chains] = {};
  st::simd::unroll<chains>([&](auto k) STRATA_INLINED { sums[k] = b * st::simd::broadcast<V>(float(k)); });
  for (std::int64_t i = 0; i < rounds; ++i)
    st::simd::unroll<chains>([&](auto k) STRATA_INLINED { sums[k] = sums[k] * a + b; });
  V total{};
  st::simd::unroll<chains>([&](auto k) STRATA_INLINED { total += sums[k]; });
  return st::simd::sum(total);
}

}  // namespace detail

/// Multiply-adds per second that all threads reach together when nothing else limits them, times 2, in GFLOP/s.
inline double peak_gflops() {
  constexpr std::int64_t rounds = 1 << 19;
  double best = std::numeric_limits<double>::infinity();
  std::vector<float> sums(std::size_t(st::num_threads()) * 16);
  for (int repeat = 0; repeat < 20; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    st::parallel_for(st::num_threads(), [&](std::int64_t thread) {
      sums[std::size_t(thread) * 16] = detail::multiply_add_chains(0.5f, 1.0f, rounds);
    });
    best = std::min(best, seconds_since(start));
  }
  const volatile float used = sums[0];
  static_cast<void>(used);
  return 2e-9 * detail::chains * st::simd::lanes<detail::V> * double(rounds) * st::num_threads() / best;
}

/// Bytes read and written per second by all threads together when each copies its part of 256 MiB, in GB/s.
inline double copy_gigabytes() {
  constexpr std::size_t part = std::size_t{1} << 22, parts = 32;
  std::vector<char> from(part * parts, 1), to(part * parts, 2);
  double best = std::numeric_limits<double>::infinity();
  for (int repeat = 0; repeat < 7; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    st::parallel_for(std::int64_t(parts), [&](std::int64_t i) {
      std::memcpy(to.data() + std::size_t(i) * part, from.data() + std::size_t(i) * part, part);
    });
    best = std::min(best, seconds_since(start));
  }
  return 2e-9 * double(part * parts) / best;
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
