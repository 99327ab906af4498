// The choice between native kernels and libraries, with plain loops in the place of the kernels.
#include <doctest/doctest.h>

#include "cuda_fakes/fake_cublas.hpp"
#include "cuda_fakes/fake_cudnn.hpp"
#include "cuda_fakes/libraries.hpp"
#include "cuda_fakes/support.hpp"
#include "strata/cuda/engine.cuh"

namespace st = strata;
using namespace strata::cuda;
using namespace strata_test;

namespace {

/// What WithLibraries asks of an accelerator. Each call costs `cost` and is counted.
class Loops {
 public:
  virtual ~Loops() = default;
  virtual void set_engine(const st::EngineOptions&) {}
  cudaStream_t stream() const { return fake_device::stream(); }

  virtual void conv2d_forward(const st::Conv2dProblem& p, const float* x, const float* weight, const float* bias,
                              float* y, st::Activation activation, bool accumulate, st::Precision) {
    spend();
    if (!accumulate) std::fill_n(y, p.output_size(), 0.0f);
    for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) { y[k] += x[i] * weight[j]; });
    for (std::int64_t k = 0; k < p.output_size(); ++k) {
      if (bias != nullptr) y[k] += bias[k % p.out];
      if (activation == st::Activation::relu && y[k] < 0) y[k] = 0;
    }
  }
  virtual void conv2d_backward_input(const st::Conv2dProblem& p, const float* dy, const float* weight, float* dx,
                                     bool accumulate, st::Precision) {
    spend();
    if (!accumulate) std::fill_n(dx, p.input_size(), 0.0f);
    for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) { dx[i] += dy[k] * weight[j]; });
  }
  virtual void conv2d_backward_weight(const st::Conv2dProblem& p, const float* x, const float* dy,
                                      st::GradientTarget<> dweight, st::GradientTarget<> dbias, st::Precision) {
    spend();
    if (dweight && !dweight.accumulate) std::fill_n(dweight.data, p.weight_size(), 0.0f);
    if (dweight)
      for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) { dweight.data[j] += dy[k] * x[i]; });
    if (dbias && !dbias.accumulate) std::fill_n(dbias.data, p.out, 0.0f);
    if (dbias)
      for (std::int64_t k = 0; k < p.output_size(); ++k) dbias.data[k % p.out] += dy[k];
  }

  float cost = 1;
  int calls = 0;

 private:
  void spend() {
    ++calls;
    fake_device::spend(cost);
  }
};

using Device = WithLibraries<Loops>;

void use(Device& device, st::Engine engine) {
  device.set_engine({.engine = engine}, fake_cudnn_path(), fake_cublas_path());
  device.calls = 0;
}

/// Runs the three passes of a problem and checks every number.
void check_passes(Device& device, const st::Conv2dProblem& p, bool accumulate,
                  st::Precision precision = st::Precision::fp32) {
  const Type type = Type::fp32;
  const Numbers x = random_numbers(p.input_size(), type, 1), w = random_numbers(p.weight_size(), type, 2),
                dy = random_numbers(p.output_size(), type, 3);
  const Numbers bias = random_numbers(p.out, type, 4), dx0 = random_numbers(p.input_size(), type, 5),
                dw0 = random_numbers(p.weight_size(), type, 6);
  const Array x_(x, type), w_(w, type), dy_(dy, type), bias_(bias, type), y_(p.output_size(), type), dx_(dx0, type),
      dw_(dw0, type), db_(bias, type);
  Sums y(dy.size()), dx(x.size()), dw(w.size()), db(bias.size());
  if (accumulate) {
    for (std::size_t i = 0; i < dx.size(); ++i) dx[i].add(dx0[i]);
    for (std::size_t i = 0; i < dw.size(); ++i) dw[i].add(dw0[i]);
    for (std::size_t i = 0; i < db.size(); ++i) db[i].add(bias[i]);
  }
  for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) {
    y[k].add(x[i] * w[j]);
    dx[i].add(dy[k] * w[j]);
    dw[j].add(dy[k] * x[i]);
  });
  for (std::size_t k = 0; k < y.size(); ++k) {
    y[k].add(bias[k % std::size_t(p.out)]);
    db[k % std::size_t(p.out)].add(dy[k]);
    if (y[k].value < 0) y[k].value = 0;
  }
  device.conv2d_forward(p, x_.floats(), w_.floats(), bias_.floats(), y_.floats(), st::Activation::relu, false,
                        precision);
  device.conv2d_backward_input(p, dy_.floats(), w_.floats(), dx_.floats(), accumulate, precision);
  device.conv2d_backward_weight(p, x_.floats(), dy_.floats(), {dw_.floats(), accumulate}, {db_.floats(), accumulate},
                                precision);
  const double part = 64 * tolerance(st::Precision::fp32) +
                      (precision == st::Precision::tf32 ? tolerance(precision) : 0);  // the loops add in fp32
  check_equal(y_.numbers(), y, part);
  check_equal(dx_.numbers(), dx, part);
  check_equal(dw_.numbers(), dw, part);
  check_equal(db_.numbers(), db, part);
}

constexpr st::Conv2dProblem three{.n = 2, .h = 4, .w = 5, .in = 2, .out = 3};
constexpr st::Conv2dProblem one{.n = 2, .h = 4, .w = 5, .in = 2, .out = 3, .kernel = 1, .padding = 0};
constexpr st::Conv2dProblem one_strided{
    .n = 1, .h = 5, .w = 5, .in = 2, .out = 3, .kernel = 1, .stride = 2, .padding = 0};

}  // namespace

TEST_CASE("engine: native, library and benchmark give the same numbers") {
  {
    Device device;
    for (const st::Engine engine : {st::Engine::native, st::Engine::library, st::Engine::benchmark})
      for (const float cost : {0.1f, 100.0f}) {  // in benchmark mode the native kernels win, then the library
        use(device, engine);
        device.cost = cost;
        for (const st::Conv2dProblem& p : {three, one, one_strided})
          for (const bool accumulate : {false, true})
            for (const st::Precision precision : {st::Precision::fp32, st::Precision::tf32})
              check_passes(device, p, accumulate, precision);
      }
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
  CHECK(fake_cublas_live_descriptors() == 0);
  CHECK(fake_device::live_allocations() == 0);
  check_clean();
}

TEST_CASE("engine: who serves") {
  Device device;
  check_passes(device, three, false);  // native before anything is said
  CHECK(device.calls == 3);
  use(device, st::Engine::library);
  check_passes(device, three, false);
  CHECK(device.calls == 1);  // the gradient for the bias
  CHECK(fake_cudnn_last_engine() == 15);
  check_passes(device, three, false, st::Precision::bf16);
  CHECK(device.calls == 4);  // whose memory is fp32: native

  use(device, st::Engine::benchmark);
  device.cost = 100;
  check_passes(device, three, false);
  const int timed = device.calls;
  check_passes(device, three, false);
  CHECK(device.calls == timed + 1);       // the library won; the gradient for the bias remains
  CHECK(fake_cudnn_last_engine() == 16);  // and of its plans the fastest
  use(device, st::Engine::benchmark);
  device.cost = 0.1f;
  check_passes(device, three, false);
  device.calls = 0;
  check_passes(device, three, false);
  CHECK(device.calls == 3);

  use(device, st::Engine::benchmark);
  device.cost = 100;
  fake_cudnn_refuse(2);  // what the library cannot do is native
  check_passes(device, three, false);
  fake_cudnn_refuse(0);
  device.calls = 0;
  check_passes(device, three, false);
  CHECK(device.calls == 3);

  use(device, st::Engine::benchmark);
  fake_device::set_capturing(true);  // nothing can be timed: native, and nothing is decided
  device.calls = 0;
  const Array x(random_numbers(three.input_size(), Type::fp32, 1), Type::fp32, 0);
  fake_device::complaints().clear();
  fake_device::set_capturing(false);
  const Array w(random_numbers(three.weight_size(), Type::fp32, 2), Type::fp32), y(three.output_size(), Type::fp32);
  fake_device::set_capturing(true);
  device.conv2d_forward(three, x.floats(), w.floats(), nullptr, y.floats(), st::Activation::none, false,
                        st::Precision::fp32);
  fake_device::set_capturing(false);
  CHECK(device.calls == 1);
  device.conv2d_forward(three, x.floats(), w.floats(), nullptr, y.floats(), st::Activation::none, false,
                        st::Precision::fp32);
  CHECK(device.calls > 2);
  check_clean();
}

TEST_CASE("engine: a missing library is an error, and the engine stays") {
  Device device;
  CHECK_THROWS_WITH_AS(device.set_engine({.engine = st::Engine::library}, "libstrata_none.so", fake_cublas_path()),
                       doctest::Contains("libstrata_none.so is missing"), st::DeviceError);
  device.calls = 0;
  check_passes(device, three, false);
  CHECK(device.calls == 3);
  use(device, st::Engine::library);
  CHECK_THROWS_AS(device.set_engine({.engine = st::Engine::benchmark}, fake_cudnn_path(), "libstrata_none.so"),
                  st::DeviceError);
  device.calls = 0;
  check_passes(device, three, false);
  CHECK(device.calls == 1);
  device.set_engine({});
  device.calls = 0;
  check_passes(device, three, false);
  CHECK(device.calls == 3);
  check_clean();
}
