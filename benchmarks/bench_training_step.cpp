// A training step and an inference of DnCNN-17 with 64 channels, in effective GFLOP/s: those of a direct convolution,
// three times the forward's for a training step.
//
//     build/release/bin/bench_training_step
#include <benchmark/benchmark.h>

#include "strata/strata.hpp"

namespace st = strata;

namespace {

using Net = st::Residual<st::Sequential<
    st::Conv2d<1, 64>, st::ReLU,
    st::Repeat<15, st::Sequential<st::Conv2d<64, 64, 3, st::no_bias>, st::BatchNorm2d<64>, st::ReLU>>,
    st::Conv2d<64, 1>>>;

st::Image<1> random_image(std::int64_t n, std::int64_t size, std::uint64_t seed) {
  st::Image<1> image(n, size, size);
  st::Rng rng(seed);
  rng.fill_normal(image.span(), 0.5f, 0.2f);
  return image;
}

void count(benchmark::State& state, double flops) {
  state.counters["GFLOP/s"] = benchmark::Counter(flops * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

void training_step(benchmark::State& state) {
  Net net;
  st::SGD sgd(net, {.lr = 0.01, .momentum = 0.9});
  const st::MSELoss mse;
  const auto x = random_image(state.range(0), 40, 1), target = random_image(state.range(0), 40, 2);
  for (auto step : state) {
    st::Train pass;
    const auto loss = mse(net(pass, x), target);
    sgd.zero_grad();
    pass.backward(loss);
    sgd.step();
  }
  count(state, 6.0 * double(st::multiply_adds<Net>(40, 40) * state.range(0)));
}
BENCHMARK(training_step)->Arg(16)->Arg(64)->UseRealTime()->Unit(benchmark::kMillisecond);

void inference(benchmark::State& state) {
  const Net net;
  const auto x = random_image(1, state.range(0), 1);
  for (auto step : state) {
    st::Infer pass;
    benchmark::DoNotOptimize(net(pass, x).data());
  }
  count(state, 2.0 * double(st::multiply_adds<Net>(state.range(0), state.range(0))));
}
BENCHMARK(inference)->Arg(40)->Arg(256)->Arg(512)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
