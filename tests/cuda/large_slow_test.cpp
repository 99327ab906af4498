// What only large problems reach: Winograd's tiles in several chunks, and more images than a grid has rows.
#include "device_test.hpp"
#include "largest.hpp"
#include "strata/cuda/winograd_plan.hpp"

using namespace device_test;

TEST_CASE("Winograd in two chunks of tiles, at places all over the image") {
  const strata::Conv2dProblem p{.n = 2, .h = 212, .w = 211, .in = 16, .out = 16};
  const strata::cuda::WinogradPlan plan(p.n, p.h, p.w, p.in, p.out);
  REQUIRE(plan.chunk < plan.tiles);
  REQUIRE(plan.tiles < 2 * plan.chunk);
  const Numbers x = numbers(p.input_size(), 1), weight = numbers(p.weight_size(), 2);
  const DeviceArray<float> dev_x(x), dev_weight(weight), y(static_cast<std::size_t>(p.output_size()));
  in_random_order([&] {
    gpu().conv2d_forward(p, dev_x.data(), dev_weight.data(), nullptr, y.data(), strata::Activation::none, false,
                         strata::Precision::fp32);
  });
  const Numbers got = y.download();
  double largest = 0;
  for (std::int64_t pixel = 0; pixel < p.n * p.h * p.w; pixel += 7) {
    const std::int64_t n = pixel / (p.h * p.w), i = pixel / p.w % p.h, j = pixel % p.w;
    for (std::int64_t o = 0; o < p.out; ++o) {
      double sum = 0;
      for (std::int64_t a = 0; a < 3; ++a)
        for (std::int64_t b = 0; b < 3; ++b) {
          const std::int64_t h = i + a - 1, w = j + b - 1;
          if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
          for (std::int64_t c = 0; c < p.in; ++c)
            sum += double(x[std::size_t(((n * p.h + h) * p.w + w) * p.in + c)]) *
                   double(weight[std::size_t(((o * 3 + a) * 3 + b) * p.in + c)]);
        }
      strata_test::keep_largest(largest, std::abs(double(got[std::size_t(pixel * p.out + o)]) - sum));
    }
  }
  const Numbers dy = numbers(p.output_size(), 3);  // the gradient for the weights, in chunks too
  const DeviceArray<float> dev_dy(dy), dev_dw(weight.size());
  in_random_order([&] {
    gpu().conv2d_backward_weight(p, dev_x.data(), dev_dy.data(), {dev_dw.data(), false}, {}, strata::Precision::fp32);
  });
  Reference dw(p.weight_size());
  for (std::int64_t pixel = 0; pixel < p.n * p.h * p.w; ++pixel)
    for (std::int64_t a = 0; a < 3; ++a)
      for (std::int64_t b = 0; b < 3; ++b) {
        const std::int64_t n = pixel / (p.h * p.w), h = pixel / p.w % p.h + a - 1, w = pixel % p.w + b - 1;
        if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
        for (std::int64_t o = 0; o < p.out; ++o)
          for (std::int64_t c = 0; c < p.in; ++c)
            dw.add(((o * 3 + a) * 3 + b) * p.in + c, double(x[std::size_t(((n * p.h + h) * p.w + w) * p.in + c)]) *
                                                         double(dy[std::size_t(pixel * p.out + o)]));
      }
  CHECK(largest_error(dev_dw, dw) <= 2e-6);

  // Sums of 144 products of numbers up to 1, a quarter on average: magnitudes of about 36, times Winograd's ten units.
  CHECK(largest <= 36 * 2e-6);
}

TEST_CASE("more images than a grid has rows") {
  const std::int64_t n = 65537;
  const Numbers x = numbers(2 * n, 1);
  Numbers mean(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < mean.size(); ++i) mean[i] = 0.5f * (x[2 * i] + x[2 * i + 1]);
  const DeviceArray<float> dev_x(x), dev_y(x.size()), dev_mean(mean.size());
  gpu().transpose(n, 2, 1, dev_x.data(), dev_y.data(), false);
  gpu().global_avg_pool_forward(n, 2, 1, dev_x.data(), dev_mean.data());
  CHECK(dev_y.download() == x);
  CHECK(dev_mean.download() == mean);

  // What the last two have alone: the launches behind the first begin where they should.
  const auto normalised = [&](std::int64_t first) {
    const strata::GroupNormProblem p{.n = n - first, .pixels = 2, .channels = 1, .groups = 1};
    const Numbers own(x.begin() + 2 * first, x.end());
    const DeviceArray<float> from(own), y(own.size()), kept(std::size_t(p.numbers())), dx(own.size());
    gpu().group_norm_forward(p, from.data(), nullptr, nullptr, y.data(), kept.data());
    gpu().group_norm_backward(p, from.data(), kept.data(), from.data(), {}, {}, {dx.data(), false});
    Numbers both = y.download(), gradients = dx.download();
    both.erase(both.begin(), both.end() - 4);
    both.insert(both.end(), gradients.end() - 4, gradients.end());
    return both;
  };
  CHECK(normalised(0) == normalised(n - 2));
}
