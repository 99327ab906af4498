// What the processor itself can do, measured in the run that quotes it: multiply-adds per second, and bytes per second
// of a copy. All threads of parallel_for together.
#pragma once

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <map>

#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/core/simd.hpp"
#include "strata/tensor/storage.hpp"
#include "strata/train/machine_peak.hpp"

namespace measured {

using V = strata::simd::Vector<float>;

/// Multiply-adds per second that all threads reach together when nothing else limits them, times 2. In GFLOP/s.
inline double peak_gflops() {
  static const double peak = strata::measure_peak().gflops;
  return peak;
}

/// `count` random numbers from -1 to 1, at least a vector of them.
inline strata::Scratch<float> random_numbers(std::int64_t count) {
  strata::Scratch<float> numbers{std::size_t(count)};
  strata::Rng rng(1);
  for (std::int64_t i = 0; i < count; ++i) numbers.data()[i] = rng.uniform(-1, 1);
  return numbers;
}

/// GB/s, read and written, of a copy that touches so many bytes: what fits a cache is faster.
inline double copy_gbytes(std::int64_t bytes) {
  static std::map<std::int64_t, double> known;
  const std::int64_t count = std::max<std::int64_t>(bytes / 8 / 256, 64) * 256;
  double& speed = known[count];
  if (speed == 0) {
    auto from = random_numbers(count), to = random_numbers(count);
    speed = 8e-9 * double(count) / strata::detail::shortest(10, [&] {
      strata::parallel_ranges(count, std::max<std::int64_t>(count / 64 / 16 * 16, 4096),
                              [&](std::int64_t i, std::int64_t end) {
                                for (; i < end; i += strata::simd::lanes<V>)
                                  strata::simd::store(to.data() + i, strata::simd::load<V>(from.data() + i));
                              });
      benchmark::ClobberMemory();
    });
  }
  return speed;
}

/// Runs `f` as the benchmark and writes its counters: operations and bytes are those of one call, 0 where they mean
/// nothing.
template <class F>
void run(benchmark::State& state, double operations, std::int64_t bytes, F&& f) {
  const double peak = operations > 0 ? peak_gflops() : 0, copy = copy_gbytes(bytes);
  f();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    f();
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double calls = double(state.iterations());
  if (operations > 0) {
    state.counters["GFLOP/s"] = 1e-9 * operations * calls / seconds;
    state.counters["of_peak"] = 1e-9 * operations * calls / seconds / peak;
  }
  state.counters["GB/s"] = 1e-9 * double(bytes) * calls / seconds;
  state.counters["of_copy"] = 1e-9 * double(bytes) * calls / seconds / copy;
}

}  // namespace measured
