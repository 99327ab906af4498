// Every call of cuBLASLt, against a fake that multiplies as the layouts say. Swapped factors or extents give other
// numbers, or an extent that does not fit. Nothing here runs on a GPU.
#include <doctest/doctest.h>

#include "cuda_fakes/fake_cublas.hpp"
#include "cuda_fakes/libraries.hpp"
#include "cuda_fakes/support.hpp"
#include "strata/cuda/cublas.cuh"

namespace st = strata;
using namespace strata::cuda;
using namespace strata_test;

namespace {

CublasOptions options() {
  CublasOptions o;
  o.library = fake_cublas_path();
  return o;
}

}  // namespace

TEST_CASE("cuBLASLt: linear layers and their gradients") {
  {
    Cublas blas(fake_device::stream(), options());
    for (const st::Precision precision :
         {st::Precision::fp32, st::Precision::tf32, st::Precision::fp16, st::Precision::bf16})
      for (const auto& [rows, in, out] :
           {std::array{5, 3, 4}, std::array{1, 1, 1}, std::array{7, 1, 2}, std::array{2, 9, 1}, std::array{1, 4, 6}})
        for (const bool accumulate : {false, true}) {
          const Type type = type_of(precision);
          const LinearProblem p{.rows = rows, .in = in, .out = out, .precision = precision};
          const Numbers x = random_numbers(rows * in, type, 1), w = random_numbers(out * in, type, 2),
                        dy = random_numbers(rows * out, type, 3);
          const Numbers bias = random_numbers(out, type, 4);
          const auto result = [&](std::int64_t count, std::uint32_t stream) {
            return accumulate ? random_numbers(count, type, stream)
                              : Numbers(static_cast<std::size_t>(count), std::nan(""));
          };
          const Numbers y0 = result(rows * out, 5), dx0 = result(rows * in, 6), dw0 = result(out * in, 7);
          const Array x_(x, type), w_(w, type), dy_(dy, type), bias_(bias, type), y_(y0, type), dx_(dx0, type),
              dw_(dw0, type);
          Sums y(y0.size()), dx(dx0.size()), dw(dw0.size());
          if (accumulate) {
            for (std::size_t i = 0; i < y.size(); ++i) y[i].add(y0[i]);
            for (std::size_t i = 0; i < dx.size(); ++i) dx[i].add(dx0[i]);
            for (std::size_t i = 0; i < dw.size(); ++i) dw[i].add(dw0[i]);
          }
          for (std::size_t r = 0; r < std::size_t(rows); ++r)
            for (std::size_t o = 0; o < std::size_t(out); ++o)
              for (std::size_t i = 0; i < std::size_t(in); ++i) {
                const std::size_t xi = r * std::size_t(in) + i, wi = o * std::size_t(in) + i,
                                  yi = r * std::size_t(out) + o;
                y[yi].add(x[xi] * w[wi]);
                dx[xi].add(dy[yi] * w[wi]);
                dw[wi].add(dy[yi] * x[xi]);
              }
          blas.linear_forward(p, x_.data(), w_.data(), nullptr, y_.data(), st::Activation::none, accumulate);
          check_equal(y_.numbers(), y, tolerance(precision));
          blas.linear_backward_input(p, dy_.data(), w_.data(), dx_.data(), accumulate);
          check_equal(dx_.numbers(), dx, tolerance(precision));
          blas.linear_backward_weight(p, x_.data(), dy_.data(), dw_.data(), accumulate);
          check_equal(dw_.numbers(), dw, tolerance(precision));
          if (accumulate) continue;
          for (const bool with_bias : {true, false})
            for (const st::Activation activation : {st::Activation::none, st::Activation::relu}) {
              const Array other(bias, type), made(rows * out, type);
              blas.linear_forward(p, x_.data(), w_.data(), with_bias ? bias_.data() : nullptr, made.data(), activation);
              Sums wanted = y;
              for (std::size_t k = 0; k < wanted.size(); ++k) {
                if (with_bias) wanted[k].add(bias[k % std::size_t(out)]);
                if (activation == st::Activation::relu && wanted[k].value < 0) wanted[k].value = 0;
              }
              check_equal(made.numbers(), wanted, tolerance(precision));
            }
        }
  }
  CHECK(fake_cublas_live_descriptors() == 0);
  CHECK(fake_device::live_allocations() == 0);
  check_clean();
}

TEST_CASE("cuBLASLt: plans are kept, also for other addresses of the same alignment; the bias is that of the call") {
  {
    Cublas blas(fake_device::stream(), options());
    const LinearProblem p{.rows = 2, .in = 3, .out = 2};
    const Array x(random_numbers(6, Type::fp32, 1), Type::fp32), w(random_numbers(6, Type::fp32, 2), Type::fp32),
        y(4, Type::fp32);
    const Numbers ones(2, 1.0), tens(2, 10.0);
    const Array one(ones, Type::fp32), ten(tens, Type::fp32);
    blas.linear_forward(p, x.data(), w.data(), one.data(), y.data());
    const Numbers first = y.numbers();
    blas.linear_forward(p, x.data(), w.data(), ten.data(), y.data());
    for (std::size_t i = 0; i < first.size(); ++i) CHECK(y.numbers()[i] == doctest::Approx(first[i] + 9).epsilon(1e-6));
    CHECK(blas.plans() == 1);
    const Array shifted(random_numbers(6, Type::fp32, 1), Type::fp32, 3);  // 12 bytes behind a boundary
    blas.linear_forward(p, shifted.data(), w.data(), ten.data(), y.data());
    CHECK(blas.plans() == 2);
    for (std::size_t i = 0; i < first.size(); ++i) CHECK(y.numbers()[i] == doctest::Approx(first[i] + 9).epsilon(1e-6));
  }
  {
    CublasOptions o = options();
    o.max_plans = 1;
    o.max_workspace_bytes = 0;
    Cublas blas(fake_device::stream(), o);
    const Array x(random_numbers(6, Type::fp32, 1), Type::fp32), w(random_numbers(6, Type::fp32, 2), Type::fp32),
        y(4, Type::fp32);
    blas.linear_forward({.rows = 2, .in = 3, .out = 2}, x.data(), w.data(), nullptr, y.data());
    blas.linear_forward({.rows = 1, .in = 3, .out = 2}, x.data(), w.data(), nullptr, y.data());
    CHECK(blas.plans() == 1);
  }
  CHECK(fake_cublas_live_descriptors() == 0);
  check_clean();
}

TEST_CASE("cuBLASLt: what fails says so") {
  CublasOptions o = options();
  o.library = "libstrata_no_such_library.so.13";
  CHECK_THROWS_WITH_AS(Cublas(fake_device::stream(), o),
                       doctest::Contains("libstrata_no_such_library.so.13 is missing"), st::DeviceError);
  {
    Cublas blas(fake_device::stream(), options());
    const Array x(6, Type::fp32), w(6, Type::fp32), y(4, Type::fp32), bias(2, Type::fp32);
    const LinearProblem p{.rows = 2, .in = 3, .out = 2};
    CHECK_THROWS_AS(blas.linear_forward(p, x.data(), w.data(), bias.data(), y.data(), st::Activation::none, true),
                    st::ValueError);
    CHECK_THROWS_AS(blas.linear_forward({.rows = 0, .in = 3, .out = 2}, x.data(), w.data(), nullptr, y.data()),
                    st::ShapeError);
    fake_cublas_refuse(true);
    CHECK_THROWS_WITH_AS(blas.linear_backward_input(p, y.data(), w.data(), x.data(), false),
                         doctest::Contains("no algorithm for a product of 3 x 2 and 2 x 2"), LibraryError);
    fake_cublas_refuse(false);
    check_clean();
    CHECK_THROWS_AS(blas.linear_forward({.rows = 3, .in = 3, .out = 2}, x.data(), w.data(), nullptr, y.data()),
                    LibraryError);  // x has 2 rows
    CHECK(fake_device::complaints().size() == 1);
    fake_device::complaints().clear();
  }
  CHECK(fake_cublas_live_descriptors() == 0);
}
