// A training step of each network on patches of 40 x 40: milliseconds, effective GFLOP/s (those of a direct
// convolution, three times the forward's) and their share of the processor's peak of fused multiply-adds, measured in
// the same run.
//
//     build/release/bin/bench_training_step --benchmark_filter=dncnn17/
#include <benchmark/benchmark.h>

#include <string>

#include "report.hpp"

namespace st = strata;

int main(int argc, char** argv) {
  return bench::report(argc, argv, [] {
    bench::for_each_network([]<class Train, class>(const char* name) {
      bench::for_each_precision([&](st::Precision precision, const char* suffix) {
        for (const std::int64_t batch : {16, 64, 128})
          bench::add(st::concat(name, suffix, "/training_step/batch:", batch),
                     bench::operations<Train>(batch, 40, 40, true),
                     [=] { return bench::TrainingStep<Train>(batch, 40, 40, precision); });
      });
    });
  });
}
