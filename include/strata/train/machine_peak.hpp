// What this machine can do, measured: the two numbers of the roofline (Williams, Waterman and Patterson, 2009), beside
// which train/profile.hpp sets what layers reach.
//
//     const st::MachinePeak peak = st::measure_peak();      // takes about 0.2 s, on num_threads() threads
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
  double gbytes = 0;  ///< 10^9 bytes a second, read and written
};

namespace detail {

/// Multiply-adds in registers, `rounds` times 16 vectors. The result depends on all of them.
inline float multiply_adds_in_registers(std::int64_t rounds, float start) {
  using V = simd::Vector<float>;
  constexpr int chains = 12;  // more than a unit's latency times the number of units; all fit into 16 registers
  V sums[chains];
  for (int i = 0; i < chains; ++i) sums[i] = simd::broadcast<V>(start + float(i));
  const V factor = simd::broadcast<V>(start), term = simd::broadcast<V>(1 - start);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) sums[i] = sums[i] * factor + term;
  }
  float sum = 0;
  for (const V& vector : sums)
    for (int lane = 0; lane < simd::lanes<V>; ++lane) sum += vector[lane];
  return sum;
}
inline constexpr double operations_a_round = 2.0 * 12 * simd::lanes<simd::Vector<float>>;

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

}  // namespace detail

/// The peak of num_threads() threads: multiply-adds in registers, and a copy of memory that no cache holds. Other
/// programs that run beside it make it smaller.
inline MachinePeak measure_peak() {
  const int threads = num_threads();
  std::vector<float> results(std::size_t(threads) * 64);
  constexpr std::int64_t rounds = 1 << 19;
  const double computing = detail::shortest(5, [&] {
    parallel_for(threads, [&](std::int64_t part) {
      results[std::size_t(part) * 64] = detail::multiply_adds_in_registers(rounds, 0.5f);
    });
  });
  constexpr std::size_t bytes = std::size_t{1} << 26, parts = 256, part_bytes = bytes / parts;
  const std::vector<std::byte> from(bytes, std::byte{1});
  std::vector<std::byte> to(bytes);
  const double copying = detail::shortest(5, [&] {
    parallel_for(std::int64_t(parts), [&](std::int64_t part) {
      std::memcpy(to.data() + std::size_t(part) * part_bytes, from.data() + std::size_t(part) * part_bytes, part_bytes);
    });
  });
  return {.gflops = double(threads) * double(rounds) * detail::operations_a_round / computing * 1e-9,
          .gbytes = 2.0 * double(bytes) / copying * 1e-9};
}

}}  // namespace strata::STRATA_ABI
