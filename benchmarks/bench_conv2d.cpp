// Convolution kernels: time, GFLOP/s, the fraction of the processor's fused multiply-add peak, and the bytes of the
// images per second as a fraction of a copy; peak and copy are measured in the same run on the same threads. Operations
// are counted as the definition has them, 2 per multiply-add, so that Winograd's algorithm, which needs fewer, can
// exceed the peak.
//
//     bench_conv2d --benchmark_filter=forward_winograd
//
// Names: kernel_method/in/out/batch/height = width/kernel/stride/dilation.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <utility>

#include "measured_limits.hpp"
#include "strata/cpu/conv2d.hpp"

namespace {

namespace st = strata;
using measured::random_numbers;

enum class Kernel { forward, backward_input, backward_weight };
enum class Method { automatic, winograd, direct };

void convolution(benchmark::State& state, Kernel kernel, Method method) {
  const int size = int(state.range(4)), dilation = int(state.range(6));
  const st::Conv2dProblem p{.n = state.range(2),
                            .h = state.range(3),
                            .w = state.range(3),
                            .in = int(state.range(0)),
                            .out = int(state.range(1)),
                            .kernel = size,
                            .stride = int(state.range(5)),
                            .padding = dilation * ((size - 1) / 2),
                            .dilation = dilation};
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
          return st::cpu::direct_backward_input<float>(p, y.data(), weight.data(), x.data(), {});
        if (method == Method::winograd)
          return st::cpu::winograd_backward_input(p, y.data(), weight.data(), x.data(), {});
        return st::cpu::conv2d_backward_input(p, y.data(), weight.data(), x.data(), false);
      case Kernel::backward_weight:
        if (method == Method::direct)
          return st::cpu::direct_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
        if (method == Method::winograd)
          return st::cpu::winograd_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
        return st::cpu::conv2d_backward_weight(p, x.data(), y.data(), weight.data(), bias.data(), false);
    }
  };
  measured::run(state, 2.0 * double(p.multiply_adds()), 4 * (p.input_size() + p.output_size()), run);
}

/// One benchmark for a batch of patches, one for an image.
void add(benchmark::internal::Benchmark* b, int in, int out, int kernel = 3, int stride = 1, int dilation = 1) {
  for (const auto& [n, size] : {std::pair{16, 40}, std::pair{1, 256}})
    b->Args({in, out, n, size, kernel, stride, dilation})->UseRealTime()->Unit(benchmark::kMillisecond);
}

void equal_channels(benchmark::internal::Benchmark* b) {
  for (const int channels : {16, 32, 64, 128, 256}) add(b, channels, channels);
}

void direct_shapes(benchmark::internal::Benchmark* b) {
  for (const auto& [in, out] : {std::pair{1, 64}, {3, 64}, {4, 64}, {64, 1}, {64, 3}}) add(b, in, out);
  add(b, 64, 64, 1);
  add(b, 64, 32, 1);
  add(b, 64, 256, 1);
  add(b, 1, 64, 9);
  add(b, 32, 1, 5);
  add(b, 64, 64, 5);
  add(b, 32, 32, 7);
  add(b, 64, 64, 3, 2);
  add(b, 64, 64, 3, 1, 2);
}

/// DCGAN's discriminator at 64 x 64, the gradient for the input being its generator; U-Net's and ResNet's.
void strided_shapes(benchmark::internal::Benchmark* b) {
  b->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int n : {64, 16})
    for (const auto& [size, in, out] : {std::array{64, 3, 64}, {32, 64, 128}, {16, 128, 256}, {8, 256, 512}})
      b->Args({in, out, n, size, 4, 2, 1});
  for (const auto& [size, in, out, kernel] : {std::array{128, 64, 128, 2},
                                              {32, 256, 512, 2},
                                              {56, 64, 128, 3},
                                              {14, 256, 512, 3},
                                              {56, 64, 128, 1},
                                              {64, 64, 64, 5},
                                              {224, 3, 64, 7}})
    b->Args({in, out, 8, size, kernel, 2, 1});
}

}  // namespace

BENCHMARK_CAPTURE(convolution, forward_strided, Kernel::forward, Method::automatic)->Apply(strided_shapes);
BENCHMARK_CAPTURE(convolution, backward_input_strided, Kernel::backward_input, Method::automatic)
    ->Apply(strided_shapes);
BENCHMARK_CAPTURE(convolution, backward_weight_strided, Kernel::backward_weight, Method::automatic)
    ->Apply(strided_shapes);
BENCHMARK_CAPTURE(convolution, forward_winograd, Kernel::forward, Method::winograd)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, forward_direct, Kernel::forward, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_input_winograd, Kernel::backward_input, Method::winograd)
    ->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_input_direct, Kernel::backward_input, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_weight_winograd, Kernel::backward_weight, Method::winograd)
    ->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, backward_weight_direct, Kernel::backward_weight, Method::direct)->Apply(equal_channels);
BENCHMARK_CAPTURE(convolution, forward_direct_shapes, Kernel::forward, Method::direct)->Apply(direct_shapes);
BENCHMARK_CAPTURE(convolution, backward_input_direct_shapes, Kernel::backward_input, Method::direct)
    ->Apply(direct_shapes);
BENCHMARK_CAPTURE(convolution, backward_weight_direct_shapes, Kernel::backward_weight, Method::direct)
    ->Apply(direct_shapes);
