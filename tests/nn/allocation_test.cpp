// After its first step a training loop takes no more memory, neither from the pool's source nor from the heap. The
// program that holds this file counts its calls of operator new.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "autograd/random_image.hpp"
#include "strata/autograd/custom_op.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/checkpoint.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/repeat.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/sgd.hpp"

namespace {

std::atomic<long> allocations = 0;

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  void* memory = alignment > alignof(std::max_align_t) ? std::aligned_alloc(alignment, bytes) : std::malloc(bytes);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) { return counted(bytes == 0 ? 1 : bytes, 1); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) { return counted(bytes, std::size_t(alignment)); }
// Those that do not throw too, as for std::stable_sort: the address sanitizer has its own, which do not call these.
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  ++allocations;
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace st = strata;
using strata_test::random_image;

namespace {

struct Counts {
  long heap;
  std::size_t pool;
};
Counts counts() { return {allocations, st::cpu_pool().fresh_blocks()}; }

/// What five calls of step(i) take after two that may take what they like.
template <class Step>
void check_steady(Step step) {
  step(0);
  step(1);
  const Counts before = counts();
  for (int i = 2; i < 7; ++i) step(i);
  const Counts after = counts();
  CHECK(after.heap == before.heap);
  CHECK(after.pool == before.pool);
}

}  // namespace

TEST_CASE("the count counts") {
  const Counts before = counts();
  const st::Tensor<> large(st::Shape{1 << 20, 37});
  const Counts after = counts();
  CHECK(after.heap > before.heap);  // the pool's note of its block
  CHECK(after.pool == before.pool + 1);
}

TEST_CASE("training steps of an image network") {
  using Net = st::Residual<st::Sequential<
      st::Conv2d<1, 8>, st::ReLU,
      st::Repeat<3, st::Sequential<st::Conv2d<8, 8, 3, st::no_bias>, st::BatchNorm2d<8>, st::ReLU>>, st::Dropout,
      st::PReLU<8>, st::Checkpoint<st::Sequential<st::Conv2d<8, 8>, st::BatchNorm2d<8>, st::ReLU, st::Dropout>>, st::Conv2d<8, 1>>>;
  Net net;
  st::Adam adam(net);
  const auto noisy = random_image<1>(2, 30, 20, 1), clean = random_image<1>(2, 30, 20, 2);
  const st::MSELoss mse;
  check_steady([&](int i) {
    st::Train pass({.seed = 1, .step = i});
    const auto y = net(pass, noisy);
    const auto loss = mse(y, clean) + 0.1f * mean(sqrt(square(y - clean) + 1e-6f));
    adam.zero_grad();
    pass.backward(loss);
    adam.step();
  });
}

TEST_CASE("training steps of a classifier") {
  using Net = st::Sequential<st::Conv2d<1, 8>, st::LeakyReLU, st::MaxPool2d<2>, st::Conv2d<8, 8>, st::BatchNorm2d<8>,
                             st::AvgPool2d<2>, st::Flatten<8, 4, 4>, st::Linear<128, 16>, st::ReLU, st::Linear<16, 3>>;
  Net net;
  st::SGD sgd(net, {.lr = 0.01, .momentum = 0.9});
  const auto images = random_image<1>(4, 16, 16, 1);
  const auto labels = st::Tensor<st::Label>::full(st::Shape{4}, 2);
  const st::CrossEntropyLoss loss;
  check_steady([&](int) {
    st::Train pass;
    sgd.zero_grad();
    pass.backward(loss(net(pass, images), labels));
    sgd.step();
  });
}

TEST_CASE("inference") {
  using Net = st::Sequential<st::Conv2d<3, 8>, st::ReLU, st::Conv2d<8, 16>, st::BatchNorm2d<16>, st::ReLU, st::PixelShuffle<16, 2>>;
  const Net net;
  const auto image = random_image<3>(1, 33, 21, 1);
  check_steady([&](int) {
    st::Infer pass;
    const auto a = net(pass, image);
    const auto y = st::cat(pass, a, 2 * a);
    CHECK(y.h() == 66);
  });
}
