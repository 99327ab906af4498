// Convolution kernels: time, GFLOP/s, and the fraction of the processor's fused multiply-add peak, which is measured in
// the same run on the same threads. Operations are counted as the definition has them, 2 per multiply-add, so that
// Winograd's algorithm, which needs fewer, can exceed the peak.
//
//     bench_conv2d --benchmark_filter=forward_winograd       names: kernel_method, then in, out, batch, height = width
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <utility>

#include "strata/core/random.hpp"
#include "strata/cpu/conv2d.hpp"

namespace {

namespace st = strata;

enum class Kernel { forward, backward_input, backward_weight };
enum class Method { automatic, winograd, direct };

using V = st::simd::Vector<float>;
constexpr int chains = 12;  // independent sums, more than latency x multipliers of any core so far
constexpr std::int64_t rounds = 1 << 20;

// noinline: the sums must start from numbers that the compiler does not know.
[[gnu::noinline]] V multiply_add_chains(V factor, V term) {
  V sums[chains] = {};
  for (int k = 0; k < chains; ++k) sums[k] = term * float(k);
  for (std::int64_t i = 0; i < rounds; ++i)
    st::simd::unroll<chains>([&](auto k) STRATA_INLINED { sums[k] = sums[k] * factor + term; });
  V total{};
  for (const V& sum : sums) total += sum;
  return total;
}

/// Multiply-adds per second that all threads reach together when nothing else limits them, times 2. In GFLOP/s.
double peak_gflops() {
  static const double peak = [] {
    double best = std::numeric_limits<double>::infinity();
    for (int repeat = 0; repeat < 10; ++repeat) {
      const auto start = std::chrono::steady_clock::now();
      st::parallel_for(st::num_threads(), [](std::int64_t) {
        benchmark::DoNotOptimize(multiply_add_chains(st::simd::broadcast<V>(0.5f), st::simd::broadcast<V>(1.0f)));
      });
      best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return 2e-9 * chains * st::simd::lanes<V> * double(rounds) * st::num_threads() / best;
  }();
  return peak;
}

st::Scratch<float> random_numbers(std::int64_t count) {
  st::Scratch<float> numbers{std::size_t(count)};
  st::Rng rng(1);
  for (std::int64_t i = 0; i < count; ++i) numbers.data()[i] = rng.uniform(-1, 1);
  return numbers;
}

void convolution(benchmark::State& state, Kernel kernel, Method method, int kernel_size = 3) {
  const st::Conv2dProblem p{.n = state.range(2),
                            .h = state.range(3),
                            .w = state.range(3),
                            .in = int(state.range(0)),
                            .out = int(state.range(1)),
                            .kernel = kernel_size,
                            .padding = kernel_size / 2};
  auto x = random_numbers(p.input_size()), y = random_numbers(p.output_size());
  auto weight = random_numbers(p.weight_size()), bias = random_numbers(p.out);
  const auto run = [&] {
    switch (kernel) {
      case Kernel::forward:
        if (method == Method::direct)
          return st::cpu::direct_forward<float>(p, x.data(), weight.data(), y.data(), {.bias = bias.data()});
        if (method == Method::winograd)
          return st::cpu::winograd_forward(p, x.data(), weight.data(), y.data(), {.bias = bias.data()});
        return st::cpu::conv2d_forward(p, x.data(), weight.data(), bias.data(), y.data());
      case Kernel::backward_input:
        if (method == Method::direct)
          return st::cpu::direct_backward_input(p, y.data(), weight.data(), x.data(), false);
        if (method == Method::winograd)
          return st::cpu::winograd_backward_input(p, y.data(), weight.data(), x.data(), false);
        return st::cpu::conv2d_backward_input(p, y.data(), weight.data(), x.data(), false);
      case Kernel::backward_weight:
        if (method == Method::direct)
          return st::cpu::direct_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
        if (method == Method::winograd)
          return st::cpu::winograd_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
        return st::cpu::conv2d_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
    }
  };
  const double peak = peak_gflops();
  run();
  const auto start = std::chrono::steady_clock::now();
  for (auto _ : state) {
    run();
    benchmark::ClobberMemory();
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double gflops = 2e-9 * double(p.multiply_adds()) * double(state.iterations()) / seconds;
  state.counters["GFLOP/s"] = gflops;
  state.counters["of_peak"] = gflops / peak;
}

void equal_channels(benchmark::internal::Benchmark* b) {
  for (const std::int64_t channels : {16, 32, 64, 128, 256})
    for (const auto& [n, size] : {std::pair{16, 40}, std::pair{1, 256}}) b->Args({channels, channels, n, size});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}

void thin_ends(benchmark::internal::Benchmark* b) {
  for (const auto& [in, out] : {std::pair{1, 64}, {3, 64}, {64, 1}, {64, 3}})
    for (const auto& [n, size] : {std::pair{16, 40}, std::pair{1, 256}}) b->Args({in, out, n, size});
  b->UseRealTime()->Unit(benchmark::kMillisecond);
}

void pointwise(benchmark::internal::Benchmark* b) {
  b->Args({64, 64, 16, 40})->Args({64, 256, 16, 40})->UseRealTime()->Unit(benchmark::kMillisecond);
}

}  // namespace

BENCHMARK_CAPTURE(convolution, forward_winograd, Kernel::forward, Method::winograd)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, forward_direct, Kernel::forward, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_input_winograd, Kernel::backward_input, Method::winograd)
    ->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_input_direct, Kernel::backward_input, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_weight_winograd, Kernel::backward_weight, Method::winograd)
    ->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_weight_direct, Kernel::backward_weight, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, forward_thin, Kernel::forward, Method::automatic)->Apply(thin_ends);
BENCHMARK_CAPTURE(convolution, backward_input_thin, Kernel::backward_input, Method::automatic)->Apply(thin_ends);
BENCHMARK_CAPTURE(convolution, backward_weight_thin, Kernel::backward_weight, Method::automatic)->Apply(thin_ends);
BENCHMARK_CAPTURE(convolution, forward_1x1, Kernel::forward, Method::automatic, 1)->Apply(pointwise);
BENCHMARK_CAPTURE(convolution, backward_input_1x1, Kernel::backward_input, Method::automatic, 1)->Apply(pointwise);
BENCHMARK_CAPTURE(convolution, backward_weight_1x1, Kernel::backward_weight, Method::automatic, 1)->Apply(pointwise);
