// Rectifiers and per-channel slopes of the CUDA backend, against the CPU's in double.
#include "device_test.hpp"
#include "strata/cpu/pointwise.hpp"

using namespace device_test;

TEST_CASE("fill and copy") {
  in_every_order([] {
    const DeviceArray<float> x(1027), y(1027);
    gpu().fill(x.data(), 1027, 2.5f);
    gpu().copy(y.data(), x.data(), 1027 * sizeof(float));
    CHECK(y.download() == Numbers(1027, 2.5f));
  });
}

TEST_CASE("rectifiers, forward and backward, in place and added to, at any alignment") {
  for (const std::int64_t size : {1, 3, 4, 1023, 1030})
    for (const std::int64_t shift : {0, 1})  // 1: not aligned to 16 bytes
      for (const float slope : {0.0f, 0.2f}) {
        CAPTURE(size);
  CAPTURE(slope);
        in_random_order([&] {
          Numbers x = numbers(size + shift, 1);
          x[std::size_t(shift)] = 0;
          const Numbers dy = numbers(size + shift, 2), old = numbers(size + shift, 3);
          std::vector<double> y = doubles(x), dx = doubles(dy), sum = doubles(old);
          for (std::size_t i = std::size_t(shift); i < y.size(); ++i) {
            y[i] = x[i] < 0 ? double(slope) * double(x[i]) : double(x[i]);
            dx[i] = x[i] > 0 ? double(dy[i]) : double(slope) * double(dy[i]);
            sum[i] += dx[i];
          }
          const DeviceArray<float> dev_y(x), dev_dx(dy), dev_sum(old), dev_dy(dy);
          const auto forward = [&](float* to) {
            slope == 0 ? gpu().relu_forward(size, to, to) : gpu().leaky_relu_forward(size, to, to, slope);
          };
          const auto backward = [&](const float* from, float* to, bool accumulate) {
            slope == 0 ? gpu().relu_backward(size, dev_y.data() + shift, from, to, accumulate)
                       : gpu().leaky_relu_backward(size, dev_y.data() + shift, from, to, slope, accumulate);
          };
          forward(dev_y.data() + shift);
          backward(dev_dx.data() + shift, dev_dx.data() + shift, false);
          backward(dev_dy.data() + shift, dev_sum.data() + shift, true);
          CHECK(largest_error(dev_y, y) <= unit);
          CHECK(largest_error(dev_dx, dx) <= unit);
          CHECK(largest_error(dev_sum, sum) <= 2 * unit);
        });
      }
}

TEST_CASE("a rectifier keeps NaN, and makes 0 of minus infinity") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const DeviceArray<float> x(Numbers{nan, -infinity, infinity}), y(3);
  gpu().relu_forward(3, x.data(), y.data());
  const Numbers got = y.download();
  CHECK(std::isnan(got[0]));
  CHECK(got[1] == 0);
  CHECK(got[2] == infinity);
}

TEST_CASE("PReLU: one slope for all channels, or one for each") {
  for (const int channels : {1, 3, 8, 33})
    for (const int slopes : {1, channels}) {
      CAPTURE(channels);
  CAPTURE(slopes);
      in_every_order([&] {
        const std::int64_t pixels = 37, size = pixels * channels;
        const Numbers x = numbers(size, 1), slope = numbers(slopes, 2), dy = numbers(size, 3);
        const Numbers old_dx = numbers(size, 4), old_slope = numbers(slopes, 5);
        std::vector<double> y(x.size()), dx = doubles(old_dx), dslope = doubles(old_slope);
        strata::cpu::prelu_forward<double>(pixels, channels, doubles(x).data(), doubles(slope).data(), slopes,
                                           y.data());
        strata::cpu::prelu_backward<double>(pixels, channels, doubles(x).data(), doubles(slope).data(), slopes,
                                            doubles(dy).data(), dx.data(), true, dslope.data());
        const DeviceArray<float> dev_x(x), dev_slope(slope), dev_dy(dy), dev_y(x.size());
        const DeviceArray<float> dev_dx(old_dx), dev_dslope(old_slope), only_dx(x.size());
        gpu().prelu_forward(pixels, channels, dev_x.data(), dev_slope.data(), slopes, dev_y.data());
        gpu().prelu_backward(pixels, channels, dev_x.data(), dev_slope.data(), slopes, dev_dy.data(),
                             {dev_dx.data(), true}, {dev_dslope.data(), true});
        CHECK(largest_error(dev_y, y) <= unit);
        CHECK(largest_error(dev_dx, dx) <= 2 * unit);
        CHECK(largest_error(dev_dslope, dslope, double(size)) <= 10 * unit);
        gpu().prelu_backward(pixels, channels, dev_x.data(), dev_slope.data(), slopes, dev_dy.data(),
                             {only_dx.data(), false}, {});
        for (std::size_t i = 0; i < dx.size(); ++i) dx[i] -= double(old_dx[i]);
        CHECK(largest_error(only_dx, dx) <= unit);
      });
    }
}
