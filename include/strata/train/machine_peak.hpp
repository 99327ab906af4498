// What this machine can do, measured: the two numbers of the roofline (Williams, Waterman and Patterson, 2009), beside
// which train/profile.hpp sets what layers reach.
//
//     const st::MachinePeak peak = st::measure_peak();      // takes about half a second, on num_threads() threads
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI {

/// 0 where it is not known.
struct MachinePeak {
  double gflops = 0;  ///< 10^9 float32 operations a second, a multiply-add being two
  double gbytes = 0;  ///< 10^9 bytes a second, those read and those written
};

namespace detail {

/// The shortest of `times` calls of work(), in seconds.
template <class Work>
double shortest(int times, Work&& work) {
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < times; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    least = std::min(least, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return least;
}

inline constexpr int peak_chains = 12;  // independent sums, more than latency x multipliers of any core so far

// noinline: the sums must start from numbers that the compiler does not know.
[[gnu::noinline]] inline float multiply_add_chains(float factor, float term, std::int64_t rounds) {
  using V = simd::Vector<float>;
  const V a = simd::broadcast<V>(factor), b = simd::broadcast<V>(term);
  V sums[peak_chains] = {};
  simd::unroll<peak_chains>([&](auto k) STRATA_INLINED { sums[k] = b * simd::broadcast<V>(float(k)); });
  for (std::int64_t i = 0; i < rounds; ++i)
    simd::unroll<peak_chains>([&](auto k) STRATA_INLINED { sums[k] = sums[k] * a + b; });
  V total{};
  simd::unroll<peak_chains>([&](auto k) STRATA_INLINED { total += sums[k]; });
  return simd::sum(total);
}

}  // namespace detail

/// The peak of num_threads() threads: multiply-adds in registers, and a copy of memory that no cache holds. Other
/// programs that run beside it make it smaller.
inline MachinePeak measure_peak() {
  const int threads = num_threads();
  constexpr std::int64_t rounds = 1 << 19;
  std::vector<float> sums(std::size_t(threads) * 16);
  const double computing = detail::shortest(20, [&] {
    parallel_for(threads, [&](std::int64_t thread) {
      sums[std::size_t(thread) * 16] = detail::multiply_add_chains(0.5f, 1.0f, rounds);
    });
  });
  const volatile float used = sums[0];
  static_cast<void>(used);
  constexpr std::size_t part = std::size_t{1} << 22, parts = 32;
  const std::vector<char> from(part * parts, 1);
  std::vector<char> to(part * parts, 2);
  const double copying = detail::shortest(7, [&] {
    parallel_for(std::int64_t(parts), [&](std::int64_t i) {
      std::memcpy(to.data() + std::size_t(i) * part, from.data() + std::size_t(i) * part, part);
    });
  });
  return {
      .gflops = 2e-9 * detail::peak_chains * simd::lanes<simd::Vector<float>> * double(rounds) * threads / computing,
      .gbytes = 2e-9 * double(part * parts) / copying};
}

}}  // namespace strata::STRATA_ABI
