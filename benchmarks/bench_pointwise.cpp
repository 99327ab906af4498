// Kernels that memory sets the pace of: activations, losses, expressions, pooling, pixel shuffle, optimisers. Bytes per
// second are those the kernel must move at least; of_copy is the fraction of a copy of as many bytes, measured in the
// same run.
//
//     bench_pointwise --benchmark_filter=relu        the argument: elements of one tensor, in 1024
#include <benchmark/benchmark.h>

#include <cstdint>

#include "measured_limits.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/cpu/optimizer.hpp"
#include "strata/cpu/pointwise.hpp"
#include "strata/cpu/pooling.hpp"

namespace {

namespace st = strata;
using measured::random_numbers;

/// Two or more tensors of the size that the benchmark's argument says.
struct Tensors {
  explicit Tensors(const benchmark::State& state) : size(state.range(0) * 1024) {}
  std::int64_t size;
  st::Scratch<float> a = random_numbers(size), b = random_numbers(size), c = random_numbers(size),
                     d = random_numbers(size);
  std::int64_t bytes(std::int64_t tensors) const { return 4 * size * tensors; }
};

void relu_forward(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(2), [&] { st::cpu::relu_forward(t.size, t.a.data(), t.b.data()); });
}
void relu_backward(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(3),
                [&] { st::cpu::relu_backward(t.size, t.a.data(), t.b.data(), t.c.data(), false); });
}
void leaky_relu_forward(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(2), [&] { st::cpu::leaky_relu_forward(t.size, t.a.data(), t.b.data(), 0.1f); });
}
void prelu_forward(benchmark::State& state) {
  Tensors t(state);
  const int channels = int(state.range(1));
  measured::run(state, 0, t.bytes(2), [&] {
    st::cpu::prelu_forward(t.size / channels, channels, t.a.data(), t.d.data(), channels, t.b.data());
  });
}
void prelu_backward(benchmark::State& state) {
  Tensors t(state);
  const int channels = int(state.range(1));
  auto dslope = random_numbers(channels);
  measured::run(state, 0, t.bytes(3), [&] {
    st::cpu::prelu_backward(t.size / channels, channels, t.a.data(), t.d.data(), channels, t.b.data(), t.c.data(),
                            false, dslope.data());
  });
}

st::Image<64> image_of(std::int64_t size, std::uint64_t seed) {
  st::Image<64> image(1, size / 4096, 64);
  st::Rng rng(seed);
  for (std::int64_t i = 0; i < image.size(); ++i) image.data()[i] = rng.uniform(-1, 1);
  return image;
}
void mse_forward(benchmark::State& state) {
  Tensors t(state);
  const st::Image<64> x = image_of(t.size, 1), y = image_of(t.size, 2);
  measured::run(state, 0, t.bytes(2), [&] { benchmark::DoNotOptimize(mean(square(x - y)).item()); });
}
void charbonnier_forward(benchmark::State& state) {
  Tensors t(state);
  const st::Image<64> x = image_of(t.size, 1), y = image_of(t.size, 2);
  measured::run(state, 0, t.bytes(2), [&] { benchmark::DoNotOptimize(mean(sqrt(square(x - y) + 1e-6f)).item()); });
}
void expression(benchmark::State& state) {
  Tensors t(state);
  const st::Image<64> x = image_of(t.size, 1), y = image_of(t.size, 2);
  measured::run(state, 0, t.bytes(3), [&] { benchmark::DoNotOptimize((x + 0.1f * y).value().data()); });
}

void sgd(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(5), [&] {
    st::cpu::sgd_update(t.size, t.a.data(), t.b.data(), t.c.data(),
                        {.lr = 1e-9, .momentum = 0.9, .weight_decay = 1e-4});
  });
}
void adam(benchmark::State& state) {
  Tensors t(state);
  for (std::int64_t i = 0; i < t.size; ++i) t.d.data()[i] = 0;
  measured::run(state, 0, t.bytes(7), [&] {
    st::cpu::adam_update(t.size, t.a.data(), t.b.data(), t.c.data(), t.d.data(),
                         {.lr = 1e-9, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8});
  });
}
void sum_of_squares(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(1), [&] { benchmark::DoNotOptimize(st::cpu::sum_of_squares(t.size, t.a.data())); });
}

st::cpu::PoolProblem pool_problem(const Tensors& t, int kernel, int stride) {
  return {.n = 1, .h = t.size / 64 / 64, .w = 64, .channels = 64, .kernel = kernel, .stride = stride};
}
void max_pool_forward(benchmark::State& state) {
  Tensors t(state);
  const auto p = pool_problem(t, 2, 2);
  measured::run(state, 0, t.bytes(1) * 5 / 4,
                [&] { st::cpu::max_pool_forward<float>(p, t.a.data(), t.b.data(), nullptr); });
}
void max_pool_forward_with_places(benchmark::State& state) {
  Tensors t(state);
  const auto p = pool_problem(t, 2, 2);
  st::Scratch<std::int64_t> from(std::size_t(t.size / 4));
  measured::run(state, 0, t.bytes(1) * 7 / 4,
                [&] { st::cpu::max_pool_forward(p, t.a.data(), t.b.data(), from.data()); });
}
void max_pool_backward(benchmark::State& state) {
  Tensors t(state);
  const auto p = pool_problem(t, 2, 2);
  st::Scratch<std::int64_t> from(std::size_t(t.size / 4));
  st::cpu::max_pool_forward(p, t.a.data(), t.b.data(), from.data());
  measured::run(state, 0, t.bytes(1) * 11 / 4,
                [&] { st::cpu::max_pool_backward(p, from.data(), t.b.data(), t.c.data()); });
}
void avg_pool_forward(benchmark::State& state) {
  Tensors t(state);
  const auto p = pool_problem(t, 2, 2);
  measured::run(state, 0, t.bytes(1) * 5 / 4, [&] { st::cpu::avg_pool_forward(p, t.a.data(), t.b.data()); });
}
void avg_pool_backward(benchmark::State& state) {
  Tensors t(state);
  const auto p = pool_problem(t, 2, 2);
  measured::run(state, 0, t.bytes(1) * 9 / 4, [&] { st::cpu::avg_pool_backward(p, t.b.data(), t.c.data()); });
}
void global_avg_pool(benchmark::State& state) {
  Tensors t(state);
  measured::run(state, 0, t.bytes(1),
                [&] { st::cpu::global_avg_pool_forward(1, t.size / 64, 64, t.a.data(), t.b.data()); });
}
void pixel_shuffle(benchmark::State& state) {
  Tensors t(state);
  const int channels = int(state.range(1)), r = int(state.range(2));
  const std::int64_t pixels = t.size / (channels * r * r);
  measured::run(state, 0, 2 * 4 * pixels * channels * r * r, [&] {
    st::cpu::pixel_shuffle(1, 16, pixels / 16, channels, r, t.a.data(), t.b.data(), state.range(3) != 0, false);
  });
}

void sizes(benchmark::internal::Benchmark* b) { b->Arg(1024)->Arg(8192)->UseRealTime()->Unit(benchmark::kMicrosecond); }
void sizes_and_channels(benchmark::internal::Benchmark* b) {
  b->Args({1024, 64})->Args({1024, 3})->UseRealTime()->Unit(benchmark::kMicrosecond);
}
void shuffles(benchmark::internal::Benchmark* b) {
  for (const std::int64_t inverse : {0, 1})
    b->Args({1024, 64, 2, inverse})
        ->Args({1024, 1, 2, inverse})
        ->Args({1024, 3, 2, inverse})
        ->Args({1024, 1, 3, inverse});
  b->UseRealTime()->Unit(benchmark::kMicrosecond);
}

}  // namespace

BENCHMARK(relu_forward)->Apply(sizes);
BENCHMARK(relu_backward)->Apply(sizes);
BENCHMARK(leaky_relu_forward)->Apply(sizes);
BENCHMARK(prelu_forward)->Apply(sizes_and_channels);
BENCHMARK(prelu_backward)->Apply(sizes_and_channels);
BENCHMARK(mse_forward)->Apply(sizes);
BENCHMARK(charbonnier_forward)->Apply(sizes);
BENCHMARK(expression)->Apply(sizes);
BENCHMARK(sgd)->Apply(sizes);
BENCHMARK(adam)->Apply(sizes);
BENCHMARK(sum_of_squares)->Apply(sizes);
BENCHMARK(max_pool_forward)->Apply(sizes);
BENCHMARK(max_pool_forward_with_places)->Apply(sizes);
BENCHMARK(max_pool_backward)->Apply(sizes);
BENCHMARK(avg_pool_forward)->Apply(sizes);
BENCHMARK(avg_pool_backward)->Apply(sizes);
BENCHMARK(global_avg_pool)->Apply(sizes);
BENCHMARK(pixel_shuffle)->Apply(shuffles);
