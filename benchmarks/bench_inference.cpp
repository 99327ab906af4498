// Each network on one image, batch norm folded: milliseconds, effective GFLOP/s (those of a direct convolution) and their
// share of the processor's peak of fused multiply-adds, measured in the same run.
//
//     build/release/bin/bench_inference --benchmark_filter=dncnn17/
#include <benchmark/benchmark.h>

#include <string>
#include <utility>

#include "report.hpp"

int main(int argc, char** argv) {
  return bench::report(argc, argv, [] {
    bench::for_each_network([]<class, class Infer>(const char* name) {
      for (const auto& [h, w] : {std::pair<std::int64_t, std::int64_t>{40, 40}, {256, 256}, {512, 512}, {321, 481}})
        bench::add(std::string(name) + "/inference/" + std::to_string(w) + "x" + std::to_string(h),
                   bench::operations<Infer>(1, h, w, false), [h, w] { return bench::Inference<Infer>(1, h, w); });
    });
  });
}
