// Google Benchmark for whole networks: one benchmark per piece of work, with its share of the processor's peak.
//
//     int main(int argc, char** argv) { return bench::report(argc, argv, [] { bench::add("name", operations, make); }); }
#pragma once

#include <benchmark/benchmark.h>

#include <cstdio>
#include <string>

#include "machine.hpp"
#include "networks.hpp"

namespace bench {

inline double& measured_peak() {
  static double peak = 0;
  return peak;
}

/// Times make()() repeatedly; `operations` are the floating-point operations of one call.
template <class Make>
void add(const std::string& name, double operations, Make make) {
  benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
    auto work = make();
    work();  // memory is planned by the first call
    const auto start = std::chrono::steady_clock::now();
    for (auto step : state) work();
    const double gflops = 1e-9 * operations * double(state.iterations()) / seconds_since(start);
    state.counters["GFLOP/s"] = gflops;
    state.counters["of_peak"] = gflops / measured_peak();
  })->UseRealTime()->Unit(benchmark::kMillisecond);
}

/// Prints what the machine can do, then runs what `register_all` adds.
template <class Register>
int report(int argc, char** argv, Register&& register_all) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const st::MachinePeak peak = st::measure_peak();
  measured_peak() = peak.gflops;
  std::fprintf(stderr,
               "%d threads, %s: %.0f GFLOP/s of multiply-adds, %.1f GB/s of copying, %.0f ns from core to core\n",
               st::num_threads(), STRATA_ISA, peak.gflops, peak.gbytes, core_to_core_nanoseconds());
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}

}  // namespace bench
