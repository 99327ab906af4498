// Every call of cuDNN, against a fake that computes what the descriptors say and checks how it is called: what is
// computed is what was meant, by our reading of cuDNN's documentation. Nothing here runs on a GPU.
#include <doctest/doctest.h>

#include "cuda_fakes/fake_cudnn.hpp"
#include "cuda_fakes/libraries.hpp"
#include "cuda_fakes/support.hpp"
#include "strata/cuda/cudnn.cuh"

namespace st = strata;
using namespace strata::cuda;
using namespace strata_test;

namespace {

CudnnOptions options() {
  CudnnOptions o;
  o.library = fake_cudnn_path();
  return o;
}

/// Odd sizes, one pixel, one channel, strides, dilations, kernels that reach over the border.
const st::Conv2dProblem problems[] = {
    {.n = 2, .h = 5, .w = 7, .in = 3, .out = 4},
    {.n = 1, .h = 1, .w = 1, .in = 1, .out = 1},
    {.n = 1, .h = 6, .w = 3, .in = 1, .out = 5},
    {.n = 3, .h = 4, .w = 5, .in = 5, .out = 1},
    {.n = 2, .h = 7, .w = 8, .in = 2, .out = 3, .stride = 2},
    {.n = 1, .h = 9, .w = 6, .in = 2, .out = 2, .kernel = 3, .padding = 2, .dilation = 2},
    {.n = 1, .h = 5, .w = 6, .in = 3, .out = 2, .kernel = 5, .padding = 2},
    {.n = 2, .h = 3, .w = 4, .in = 3, .out = 3, .kernel = 2, .stride = 1, .padding = 0},
    {.n = 2, .h = 3, .w = 2, .in = 4, .out = 3, .kernel = 1, .padding = 0},
};

Sums beginning(const Numbers& numbers, bool read) {
  Sums sums(numbers.size());
  if (read)
    for (std::size_t i = 0; i < numbers.size(); ++i) sums[i].add(numbers[i]);
  return sums;
}

}  // namespace

TEST_CASE("cuDNN: convolutions and their gradients") {
  {
    Cudnn cudnn(fake_device::stream(), options());
    for (const st::Precision precision :
         {st::Precision::fp32, st::Precision::tf32, st::Precision::fp16, st::Precision::bf16}) {
      const Type type = type_of(precision);
      for (const st::Conv2dProblem& p : problems)
        for (const bool accumulate : {false, true}) {
          const Numbers x = random_numbers(p.input_size(), type, 1), w = random_numbers(p.weight_size(), type, 2);
          const Numbers dy = random_numbers(p.output_size(), type, 3), bias = random_numbers(p.out, type, 4);
          const Array dx_(accumulate ? random_numbers(p.input_size(), type, 5) : Numbers(x.size(), std::nan("")), type);
          const Array dw_(accumulate ? random_numbers(p.weight_size(), type, 6) : Numbers(w.size(), std::nan("")),
                          type);
          const Array y_(accumulate ? random_numbers(p.output_size(), type, 7) : Numbers(dy.size(), std::nan("")),
                         type);
          const Array x_(x, type), w_(w, type), dy_(dy, type), bias_(bias, type);
          Sums dx = beginning(dx_.numbers(), accumulate), dw = beginning(dw_.numbers(), accumulate),
               y = beginning(y_.numbers(), accumulate);
          for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) {
            y[k].add(x[i] * w[j]);
            dx[i].add(dy[k] * w[j]);
            dw[j].add(dy[k] * x[i]);
          });
          CudnnConvolution c{.problem = p, .precision = precision, .accumulate = accumulate};
          CAPTURE(c.str());
          cudnn.run(c, {{Role::x, x_.data()}, {Role::weight, w_.data()}, {Role::y, y_.data()}});
          check_equal(y_.numbers(), y, tolerance(precision));
          c.pass = ConvolutionPass::backward_input;
          cudnn.run(c, {{Role::dy, dy_.data()}, {Role::weight, w_.data()}, {Role::dx, dx_.data()}});
          check_equal(dx_.numbers(), dx, tolerance(precision));
          c.pass = ConvolutionPass::backward_weight;
          cudnn.run(c, {{Role::x, x_.data()}, {Role::dy, dy_.data()}, {Role::dweight, dw_.data()}});
          check_equal(dw_.numbers(), dw, tolerance(precision));
          if (accumulate) continue;
          c.pass = ConvolutionPass::forward;
          for (const bool with_bias : {true, false})
            for (const st::Activation activation : {st::Activation::none, st::Activation::relu}) {
              c.bias = with_bias, c.activation = activation;
              CAPTURE(c.str());
              const Array out(p.output_size(), type);
              if (with_bias)
                cudnn.run(c, {{Role::x, x_.data()},
                              {Role::weight, w_.data()},
                              {Role::bias, bias_.data()},
                              {Role::y, out.data()}});
              else
                cudnn.run(c, {{Role::x, x_.data()}, {Role::weight, w_.data()}, {Role::y, out.data()}});
              Sums wanted = y;
              for (std::size_t k = 0; k < wanted.size(); ++k) {
                if (with_bias) wanted[k].add(bias[k % std::size_t(p.out)]);
                if (activation == st::Activation::relu && wanted[k].value < 0) wanted[k].value = 0;
              }
              check_equal(out.numbers(), wanted, tolerance(precision));
            }
        }
    }
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
  CHECK(fake_cudnn_live_handles() == 0);
  CHECK(fake_device::live_allocations() == 0);
  check_clean();
}

TEST_CASE("cuDNN: batch normalisation") {
  {
    Cudnn cudnn(fake_device::stream(), options());
    for (const st::Precision precision : {st::Precision::fp32, st::Precision::fp16, st::Precision::bf16})
      for (const auto& [n, h, w, channels] : {std::array{2, 5, 7, 3}, std::array{2, 1, 1, 1}, std::array{1, 3, 4, 5}}) {
        const Type type = type_of(precision);
        const std::int64_t size = std::int64_t{1} * n * h * w * channels, pixels = size / channels;
        const Numbers x = random_numbers(size, type, 1), dy = random_numbers(size, type, 2);
        const Numbers weight = random_numbers(channels, Type::fp32, 3), bias = random_numbers(channels, Type::fp32, 4);
        const Numbers running = random_numbers(channels, Type::fp32, 5);
        const Array x_(x, type), dy_(dy, type), weight_(weight, Type::fp32), bias_(bias, Type::fp32),
            running_(running, Type::fp32);
        const Array y_(size, type), dx_(size, type), mean_(channels, Type::fp32), inverse_(channels, Type::fp32);
        const Array new_mean(channels, Type::fp32), new_var(channels, Type::fp32), dweight(channels, Type::fp32),
            dbias(channels, Type::fp32);
        const float epsilon = 1e-3f, momentum = 0.25f;
        CudnnBatchNorm b{.n = n, .h = h, .w = w, .channels = channels, .precision = precision};
        CAPTURE(b.str());
        cudnn.run(b, {{Role::x, x_.data()},
                      {Role::weight, weight_.data()},
                      {Role::bias, bias_.data()},
                      {Role::mean, mean_.data()},
                      {Role::inverse_std, inverse_.data()},
                      {Role::running_mean, running_.data()},
                      {Role::running_var, running_.data()},
                      {Role::new_running_mean, new_mean.data()},
                      {Role::new_running_var, new_var.data()},
                      {Role::y, y_.data()},
                      {Role::epsilon, &epsilon},
                      {Role::momentum, &momentum}});
        b.pass = CudnnBatchNorm::Pass::backward;
        cudnn.run(b, {{Role::x, x_.data()},
                      {Role::dy, dy_.data()},
                      {Role::weight, weight_.data()},
                      {Role::mean, mean_.data()},
                      {Role::inverse_std, inverse_.data()},
                      {Role::dweight, dweight.data()},
                      {Role::dbias, dbias.data()},
                      {Role::dx, dx_.data()}});

        Sums mean(static_cast<std::size_t>(channels)), inverse(mean), wanted_mean(mean), wanted_var(mean), sum_g(mean),
            sum_gx(mean), y(x.size()), dx(x.size());
        for (std::size_t c = 0; c < std::size_t(channels); ++c) {
          double total = 0, squares = 0;
          for (std::size_t i = c; i < x.size(); i += std::size_t(channels)) total += x[i];
          const double m = total / double(pixels);
          for (std::size_t i = c; i < x.size(); i += std::size_t(channels)) squares += (x[i] - m) * (x[i] - m);
          const double v = squares / double(pixels), r = 1 / std::sqrt(v + double(epsilon));
          mean[c] = {m, 1}, inverse[c] = {r, r};
          wanted_mean[c] = {0.75 * running[c] + 0.25 * m, 1};
          wanted_var[c] = {0.75 * running[c] + 0.25 * squares / double(pixels - 1), 1};
          for (std::size_t i = c; i < x.size(); i += std::size_t(channels)) {
            y[i] = {weight[c] * (x[i] - m) * r + bias[c], 1 + r};
            sum_g[c].add(dy[i]);
            sum_gx[c].add(dy[i] * (x[i] - m) * r);
          }
          for (std::size_t i = c; i < x.size(); i += std::size_t(channels))
            dx[i] = {weight[c] * r *
                         (dy[i] - sum_g[c].value / double(pixels) - (x[i] - m) * r * sum_gx[c].value / double(pixels)),
                     r * (1 + 2 * sum_g[c].magnitude + r * sum_gx[c].magnitude)};
        }
        // Statistics are fp32; a mean rounded to fp32 moves what is computed from it by r times that.
        const double fp32 = 4 * tolerance(st::Precision::fp32);
        check_equal(mean_.numbers(), mean, fp32);
        check_equal(inverse_.numbers(), inverse, fp32);
        check_equal(new_mean.numbers(), wanted_mean, fp32);
        check_equal(new_var.numbers(), wanted_var, fp32);
        check_equal(y_.numbers(), y, fp32 + tolerance(precision));
        for (std::size_t c = 0; c < std::size_t(channels); ++c)
          sum_gx[c].magnitude += inverse[c].value * sum_g[c].magnitude;
        check_equal(dweight.numbers(), sum_gx, fp32);
        check_equal(dbias.numbers(), sum_g, fp32);
        check_equal(dx_.numbers(), dx, fp32 + tolerance(precision));

        b.pass = CudnnBatchNorm::Pass::inference;
        for (const st::Activation activation : {st::Activation::none, st::Activation::relu}) {
          b.activation = activation;
          const Array out(size, type);
          cudnn.run(b, {{Role::x, x_.data()},
                        {Role::weight, weight_.data()},
                        {Role::bias, bias_.data()},
                        {Role::y, out.data()}});
          Sums wanted(x.size());
          for (std::size_t i = 0; i < x.size(); ++i) {
            wanted[i].add(x[i] * weight[i % std::size_t(channels)]);
            wanted[i].add(bias[i % std::size_t(channels)]);
            if (activation == st::Activation::relu && wanted[i].value < 0) wanted[i].value = 0;
          }
          check_equal(out.numbers(), wanted, tolerance(precision));
        }
      }
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
  CHECK(fake_device::live_allocations() == 0);
  check_clean();
}

TEST_CASE("cuDNN: plans are made once for each problem, and the wishes decide which engine serves") {
  const st::Conv2dProblem p{.n = 1, .h = 4, .w = 5, .in = 2, .out = 3};
  const Array x(random_numbers(p.input_size(), Type::fp32, 1), Type::fp32),
      w(random_numbers(p.weight_size(), Type::fp32, 2), Type::fp32);
  const Array y(p.output_size(), Type::fp32);
  const auto run = [&](Cudnn& cudnn, CudnnConvolution c) {
    c.problem = p;
    cudnn.run(c, {{Role::x, x.data()}, {Role::weight, w.data()}, {Role::y, y.data()}});
    return fake_cudnn_last_engine();
  };
  {
    Cudnn cudnn(fake_device::stream(), options());
    const long before = fake_cudnn_plans_made();
    CHECK(run(cudnn, {}) == 15);  // the first without tensor cores that is deterministic, makes a plan and has room
    CHECK(run(cudnn, {}) == 15);
    CHECK(cudnn.plans() == 1);
    CHECK(run(cudnn, {.precision = st::Precision::tf32}) == 10);
    CHECK(run(cudnn, {.activation = st::Activation::relu}) == 15);
    CHECK(cudnn.plans() == 3);
    const Array shifted(random_numbers(p.input_size(), Type::fp32, 1), Type::fp32, 1);  // 4 bytes behind a boundary
    cudnn.run({.problem = p}, {{Role::x, shifted.data()}, {Role::weight, w.data()}, {Role::y, y.data()}});
    CHECK(cudnn.plans() == 4);
    CHECK(cudnn.can_run(CudnnConvolution{.problem = p}));
    CHECK_FALSE(cudnn.can_run(CudnnConvolution{.problem = {.n = 0}}));
    CHECK(fake_cudnn_plans_made() >= before + 4);
  }
  {
    CudnnOptions o = options();
    o.deterministic = false;
    Cudnn cudnn(fake_device::stream(), o);
    CHECK(run(cudnn, {}) == 12);
  }
  {
    CudnnOptions o = options();
    o.max_workspace_bytes = std::size_t{4} << 30;
    Cudnn cudnn(fake_device::stream(), o);
    CHECK(cudnn.can_run(CudnnConvolution{.problem = p}));  // 13, which is not run: this machine may not have the room
  }
  {
    CudnnOptions o = options();
    o.max_workspace_bytes = 100;
    Cudnn cudnn(fake_device::stream(), o);
    CHECK(run(cudnn, {}) == 16);
    fake_cudnn_refuse(1);
    CHECK(run(cudnn, {.precision = st::Precision::tf32}) == 99);
    fake_cudnn_refuse(2);
    CHECK_THROWS_WITH_AS(run(cudnn, {.activation = st::Activation::relu}),
                         doctest::Contains("no plan for this: convolution + relu fp32 1x2x4x5"), CudnnError);
    fake_cudnn_refuse(0);
  }
  {
    CudnnOptions o = options();
    o.max_plans = 2;
    Cudnn cudnn(fake_device::stream(), o);
    run(cudnn, {});
    run(cudnn, {.precision = st::Precision::tf32});
    run(cudnn, {});
    run(cudnn, {.activation = st::Activation::relu});  // in the place of tf32, which was not used for longest
    CHECK(cudnn.plans() == 2);
    const long before = fake_cudnn_plans_made();
    run(cudnn, {});
    CHECK(fake_cudnn_plans_made() == before);
    run(cudnn, {.precision = st::Precision::tf32});
    CHECK(fake_cudnn_plans_made() == before + 1);
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
  check_clean();
}

TEST_CASE("cuDNN: timing plans keeps the fastest and adds once") {
  const st::Conv2dProblem p{.n = 1, .h = 3, .w = 4, .in = 2, .out = 2};
  const Numbers x = random_numbers(p.input_size(), Type::fp32, 1), dy = random_numbers(p.output_size(), Type::fp32, 2);
  const Numbers start = random_numbers(p.weight_size(), Type::fp32, 3);
  const Array x_(x, Type::fp32), dy_(dy, Type::fp32), dw(start, Type::fp32);
  CudnnOptions o = options();
  o.plans_to_time = 5;
  {
    Cudnn cudnn(fake_device::stream(), o);
    const CudnnConvolution c{.problem = p, .pass = ConvolutionPass::backward_weight, .accumulate = true};
    cudnn.run(c, {{Role::x, x_.data()}, {Role::dy, dy_.data()}, {Role::dweight, dw.data()}});
    CHECK(fake_cudnn_last_engine() == 16);  // 2 ms; 15 takes 3
    Sums wanted = beginning(start, true);
    for_each_product(p, [&](std::size_t i, std::size_t j, std::size_t k) { wanted[j].add(dy[k] * x[i]); });
    check_equal(dw.numbers(), wanted, tolerance(st::Precision::fp32));
  }
  {
    Cudnn cudnn(fake_device::stream(), o);
    fake_device::set_capturing(true);  // nothing may be timed: the plan that cuDNN ranks first, which wants a workspace
    CudnnConvolution c{.problem = p, .pass = ConvolutionPass::backward_weight};
    CHECK_THROWS_WITH_AS(cudnn.run(c, {{Role::x, x_.data()}, {Role::dy, dy_.data()}, {Role::dweight, dw.data()}}),
                         doctest::Contains("run the same work once before"), st::DeviceError);
    fake_device::set_capturing(false);
    cudnn.run(c, {{Role::x, x_.data()}, {Role::dy, dy_.data()}, {Role::dweight, dw.data()}});
    fake_device::set_capturing(true);
    cudnn.run(c, {{Role::x, x_.data()}, {Role::dy, dy_.data()}, {Role::dweight, dw.data()}});
    fake_device::set_capturing(false);
    CHECK(fake_cudnn_last_engine() == 16);
  }
  check_clean();
}

TEST_CASE("cuDNN: what fails says so") {
  CudnnOptions o = options();
  o.library = "libstrata_no_such_library.so.9";
  CHECK_THROWS_WITH_AS(Cudnn(fake_device::stream(), o), doctest::Contains("libstrata_no_such_library.so.9 is missing"),
                       st::DeviceError);
  o.library = fake_cublas_path();  // a library, but not cuDNN
  CHECK_THROWS_WITH_AS(Cudnn(fake_device::stream(), o), doctest::Contains("has no function cudnnGetVersion"),
                       st::DeviceError);
  {
    Cudnn cudnn(fake_device::stream(), options());
    const st::Conv2dProblem p{.n = 1, .h = 2, .w = 2, .in = 1, .out = 1};
    const Array x(p.input_size(), Type::fp32), w(p.weight_size(), Type::fp32), y(p.output_size(), Type::fp32);
    const auto run = [&](const CudnnConvolution& c) {
      cudnn.run(c, {{Role::x, x.data()}, {Role::weight, w.data()}, {Role::y, y.data()}});
    };
    CHECK_THROWS_AS(run({.problem = p, .activation = st::Activation::relu, .accumulate = true}), st::ValueError);
    st::Conv2dProblem small = p;
    small.kernel = 9;
    CHECK_THROWS_AS(run({.problem = small}), CudnnError);
    fake_device::fail_next_allocation();
    CHECK_THROWS_WITH_AS(run({.problem = p}), doctest::Contains("workspace of 1000 bytes: out of memory"),
                         st::DeviceError);
    run({.problem = p});
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
  check_clean();
}

// The fake is worth what it refuses: mistakes a caller could make, and what it says to them.
TEST_CASE("the fake cuDNN sees mistakes") {
  {
    CudnnLibrary library(fake_cudnn_path());
    const auto complaint = [&](auto&& mistake) {
      fake_device::complaints().clear();
      try {
        mistake();
      } catch (const st::Error&) {
      }
      const std::string text = fake_device::complaints().empty() ? "" : fake_device::complaints().front();
      fake_device::complaints().clear();
      return text;
    };
    const auto complains = [&](auto&& mistake, const char* wanted) {
      CHECK(complaint(mistake).find(wanted) != std::string::npos);
    };
    complains([&] { Descriptor(library, CUDNN_BACKEND_TENSOR_DESCRIPTOR).set(CUDNN_ATTR_TENSOR_UNIQUE_ID, 1.0); },
              "has type");
    complains([&] { Descriptor(library, CUDNN_BACKEND_TENSOR_DESCRIPTOR).finalize("a tensor"); }, "was not set");
    complains(
        [&] {
          const Descriptor tensor(library, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
          Descriptor operation(library, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
          operation.set(CUDNN_ATTR_OPERATION_POINTWISE_XDESC, tensor).finalize("an operation");
        },
        "is not finalized");

    Cudnn cudnn(fake_device::stream(), options());
    const st::Conv2dProblem p{.n = 1, .h = 3, .w = 3, .in = 2, .out = 2};
    const Array x(p.input_size(), Type::fp32), w(p.weight_size(), Type::fp32), y(p.output_size(), Type::fp32);
    const Array small(p.output_size() - 1, Type::fp32);
    complains([&] { cudnn.run({.problem = p}, {{Role::x, x.data()}, {Role::weight, w.data()}}); },
              "no address for tensor");
    complains(
        [&] { cudnn.run({.problem = p}, {{Role::x, x.data()}, {Role::weight, w.data()}, {Role::y, small.data()}}); },
        "inside an allocation");
    complains(
        [&] {
          cudnn.run({.problem = p},
                    {{Role::x, x.data()}, {Role::weight, w.data()}, {Role::y, y.data()}, {Role::y, y.data()}});
        },
        "two addresses");
  }
  CHECK(fake_cudnn_live_descriptors() == 0);
}
