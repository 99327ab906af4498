// cuDNN and cuBLASLt on a device: each convolution gives what Strata's own kernels give, within both sides' rounding.
#include "device_test.hpp"
#include "largest.hpp"

using namespace device_test;
using strata::Activation, strata::Conv2dProblem, strata::Engine, strata::Precision;

namespace {

/// Largest difference of two results, as a part of the root of the number of products in a sum.
double difference(const Numbers& a, const Numbers& b, std::int64_t products) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    strata_test::keep_largest(largest, std::abs(double(a[i]) - double(b[i])));
  return largest / std::sqrt(double(products));
}

struct Results {
  Numbers y, dx, dw;
};

Results run(const Conv2dProblem& p, Engine engine, Precision precision) {
  gpu().set_engine({.engine = engine});
  const DeviceArray<float> x(numbers(p.input_size(), 1)), w(numbers(p.weight_size(), 2)), bias(numbers(p.out, 3));
  const DeviceArray<float> dy(numbers(p.output_size(), 4));
  const DeviceArray<float> y(std::size_t(p.output_size())), dx(std::size_t(p.input_size())),
      dw(std::size_t(p.weight_size()));
  gpu().conv2d_forward(p, x.data(), w.data(), bias.data(), y.data(), Activation::relu, false, precision);
  gpu().conv2d_backward_input(p, dy.data(), w.data(), dx.data(), false, precision);
  gpu().conv2d_backward_weight(p, x.data(), dy.data(), {dw.data(), false}, {}, precision);
  Results results{y.download(), dx.download(), dw.download()};
  gpu().set_engine({.engine = Engine::native});
  return results;
}

}  // namespace

TEST_CASE("cuDNN, cuBLASLt and the benchmark mode agree with the native kernels") {
  for (const Conv2dProblem& p :
       {Conv2dProblem{.n = 2, .h = 40, .w = 40, .in = 64, .out = 64},
        Conv2dProblem{.n = 2, .h = 40, .w = 40, .in = 1, .out = 64},
        Conv2dProblem{.n = 2, .h = 40, .w = 40, .in = 64, .out = 1},
        Conv2dProblem{.n = 1, .h = 33, .w = 17, .in = 32, .out = 48, .kernel = 5, .stride = 2, .padding = 2},
        Conv2dProblem{.n = 64, .h = 1, .w = 1, .in = 128, .out = 10, .kernel = 1, .padding = 0}})
    for (const Precision precision : {Precision::fp32, Precision::tf32})
      for (const Engine engine : {Engine::library, Engine::benchmark}) {
        CAPTURE(p.in);
        CAPTURE(p.out);
        CAPTURE(int(precision));
        CAPTURE(int(engine));
        const Results native = run(p, Engine::native, precision), library = run(p, engine, precision);
        // Factors below 1 with errors of a rounding: 2^-24 in fp32, times ten in Winograd's transforms on either side;
        // 2^-11 in tf32. Such errors add up as the root of their number; eight deviations never happen.
        const double tolerance = 8 * (precision == Precision::fp32 ? 20 * 0x1p-24 : 2 * 0x1p-11);
        const std::int64_t pixels = p.n * p.out_h() * p.out_w(), taps = std::int64_t(p.kernel) * p.kernel;
        CHECK(difference(library.y, native.y, taps * p.in) <= tolerance);
        CHECK(difference(library.dx, native.dx, taps * p.out) <= tolerance);
        CHECK(difference(library.dw, native.dw, pixels) <= tolerance);
      }
}
