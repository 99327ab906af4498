// Each network on one image, batch norm folded: milliseconds, effective GFLOP/s (those of a direct convolution) and
// their share of the processor's peak of fused multiply-adds, measured in the same run.
//
//     build/release/bin/bench_inference --benchmark_filter=dncnn17/
#include <benchmark/benchmark.h>

#include <string>
#include <utility>

#include "report.hpp"

namespace st = strata;

int main(int argc, char** argv) {
  return bench::report(argc, argv, [] {
    bench::for_each_network([]<class, class Infer>(const char* name) {
      bench::for_each_precision([&](st::Precision precision, const char* suffix) {
        for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{40, 40}, {256, 256}, {512, 512}, {321, 481}})
          bench::add(st::concat(name, suffix, "/inference/", w, "x", h), bench::operations<Infer>(1, h, w, false),
                     [h, w, precision] { return bench::Inference<Infer>(1, h, w, precision); });
      });
    });
  });
}
