// Windows and permutations of the CUDA backend, against the CPU's in double.
#include "device_test.hpp"
#include "strata/cpu/pooling.hpp"

using namespace device_test;
using strata::PoolProblem;

namespace {

/// wanted += old.
std::vector<double> sum(std::vector<double> wanted, const Numbers& old) {
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += double(old[i]);
  return wanted;
}

void check_means(const PoolProblem& p) {
  const std::int64_t in = p.n * p.h * p.w * p.channels, out = p.n * p.out_h() * p.out_w() * p.channels;
  const Numbers x = numbers(in, 1), dy = numbers(out, 2), old = numbers(in, 3);
  std::vector<double> mean(static_cast<std::size_t>(out)), dmean(x.size(), 0.0);
  strata::cpu::avg_pool_forward<double>(p, doubles(x).data(), mean.data());
  strata::cpu::avg_pool_backward<double>(p, doubles(dy).data(), dmean.data());
  const DeviceArray<float> dev_x(x), dev_dy(dy), dev_mean(mean.size()), dev_dmean(x.size()), dev_mean_added(old);
  gpu().avg_pool_forward(p, dev_x.data(), dev_mean.data());
  CHECK(largest_error(dev_mean, mean) <= 9 * unit);
  gpu().avg_pool_backward(p, dev_dy.data(), dev_dmean.data(), false);
  CHECK(largest_error(dev_dmean, dmean) <= 9 * unit);
  gpu().avg_pool_backward(p, dev_dy.data(), dev_mean_added.data(), true);
  CHECK(largest_error(dev_mean_added, sum(dmean, old)) <= 9 * unit);
}

void check_windows(const PoolProblem& p) {
  const std::string shape = strata::concat(p.n, "x", p.channels, "x", p.h, "x", p.w, ", kernel ", p.kernel, ", stride ",
                                           p.stride, ", padding ", p.padding);
  CAPTURE(shape);
  const std::int64_t in = p.n * p.h * p.w * p.channels, out = p.n * p.out_h() * p.out_w() * p.channels;
  Numbers x = numbers(in, 1);
  for (float& v : x) v = std::round(v * 4) / 4;  // many equals: the first counts
  const Numbers dy = numbers(out, 2), old = numbers(in, 3);
  std::vector<double> y(static_cast<std::size_t>(out)), dx(x.size(), 0.0);
  std::vector<std::int64_t> from(y.size());
  strata::cpu::max_pool_forward<double>(p, doubles(x).data(), y.data(), from.data());
  strata::cpu::max_pool_backward<double>(p, from.data(), doubles(dy).data(), dx.data());

  const DeviceArray<float> dev_x(x), dev_dy(dy), dev_y(y.size()), dev_plain(y.size()), dev_dx(x.size()), dev_added(old);
  const DeviceArray<std::int32_t> place(y.size());
  gpu().max_pool_forward(p, dev_x.data(), dev_y.data(), place.data());
  gpu().max_pool_forward(p, dev_x.data(), dev_plain.data(), nullptr);
  CHECK(largest_error(dev_y, y) == 0);
  CHECK(dev_plain.download() == dev_y.download());
  gpu().max_pool_backward(p, place.data(), dev_dy.data(), dev_dx.data(), false);
  CHECK(largest_error(dev_dx, dx) <= 4 * unit);
  gpu().max_pool_backward(p, place.data(), dev_dy.data(), dev_added.data(), true);
  CHECK(largest_error(dev_added, sum(dx, old)) <= 4 * unit);

  check_means(p);
}

}  // namespace

TEST_CASE("maximum and mean of windows, which may overlap or leave pixels out") {
  in_every_order([] { check_windows({.n = 2, .h = 5, .w = 7, .channels = 3, .kernel = 3, .stride = 2}); });
  in_random_order([] {
    check_windows({.n = 1, .h = 1, .w = 1, .channels = 1, .kernel = 1, .stride = 1});
    check_windows({.n = 1, .h = 4, .w = 6, .channels = 8, .kernel = 2, .stride = 2});
    check_windows({.n = 3, .h = 7, .w = 4, .channels = 5, .kernel = 2, .stride = 3});
    check_windows({.n = 1, .h = 6, .w = 5, .channels = 2, .kernel = 3, .stride = 1});
    check_windows({.n = 2, .h = 7, .w = 6, .channels = 3, .kernel = 3, .stride = 2, .padding = 1});
    check_windows(
        {.n = 1, .h = 1, .w = 4, .channels = 2, .kernel = 2, .stride = 1, .padding = 1, .count_padding = false});
    check_windows({.n = 1, .h = 5, .w = 9, .channels = 5, .kernel = 4, .stride = 3, .padding = 2, .ceil = true});
    check_windows(
        {.n = 1, .h = 6, .w = 8, .channels = 2, .kernel = 3, .stride = 2, .ceil = true, .count_padding = false});
    // For maxima of parts the kernel is at least as wide as a part: places are counted in it.
    check_windows({.n = 2, .h = 7, .w = 6, .channels = 3, .kernel = 4, .parts_h = 3, .parts_w = 2});
    check_windows({.n = 1, .h = 3, .w = 2, .channels = 2, .kernel = 2, .parts_h = 5, .parts_w = 7});
    check_windows({.n = 1, .h = 6, .w = 4, .channels = 1, .kernel = 2, .parts_h = 2, .parts_w = 4});
  });
}

TEST_CASE("the largest value of a window with NaN is NaN") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const DeviceArray<float> x(Numbers{1, nan, 2, 3}), y(1);
  gpu().max_pool_forward({.h = 2, .w = 2, .channels = 1}, x.data(), y.data(), nullptr);
  CHECK(std::isnan(y.download()[0]));
}

TEST_CASE("means of whole images") {
  for (const int channels : {1, 5, 40})
    for (const std::int64_t pixels : {1, 9, 70}) {
      in_every_order([&] {
        const std::int64_t n = 2, size = n * pixels * channels;
        const Numbers x = numbers(size, 1), dy = numbers(n * channels, 2), old = numbers(size, 3);
        std::vector<double> y(dy.size()), dx = doubles(old);
        strata::cpu::global_avg_pool_forward<double>(n, pixels, channels, doubles(x).data(), y.data());
        strata::cpu::global_avg_pool_backward<double>(n, pixels, channels, doubles(dy).data(), dx.data(), true);
        const DeviceArray<float> dev_x(x), dev_dy(dy), dev_y(dy.size()), dev_dx(old);
        gpu().global_avg_pool_forward(n, pixels, channels, dev_x.data(), dev_y.data());
        gpu().global_avg_pool_backward(n, pixels, channels, dev_dy.data(), dev_dx.data(), true);
        CHECK(largest_error(dev_y, y) <= 16 * unit);
        CHECK(largest_error(dev_dx, dx) <= 2 * unit);
      });
    }
}

TEST_CASE("pixel shuffle and its inverse") {
  for (const int channels : {1, 3})
    for (const int r : {1, 2, 3}) {
      const std::int64_t n = 2, h = 3, w = 5, size = n * h * w * channels * r * r;
      const Numbers x = numbers(size, 1), old = numbers(size, 2);
      for (const bool inverse : {false, true}) {
        std::vector<double> y(x.size()), added = doubles(old);
        strata::cpu::pixel_shuffle<double>(n, h, w, channels, r, doubles(x).data(), y.data(), inverse, false);
        strata::cpu::pixel_shuffle<double>(n, h, w, channels, r, doubles(x).data(), added.data(), inverse, true);
        in_random_order([&] {
          const DeviceArray<float> dev_x(x), dev_y(x.size()), dev_added(old);
          gpu().pixel_shuffle(n, h, w, channels, r, dev_x.data(), dev_y.data(), inverse, false);
          gpu().pixel_shuffle(n, h, w, channels, r, dev_x.data(), dev_added.data(), inverse, true);
          CHECK(largest_error(dev_y, y) == 0);
          CHECK(largest_error(dev_added, added) <= unit);
        });
      }
    }
}

TEST_CASE("transposition") {
  for (const std::int64_t rows : {1, 31, 40})
    for (const std::int64_t columns : {1, 33, 64}) {
      const std::int64_t batch = 3, size = batch * rows * columns;
      const Numbers x = numbers(size, 1), old = numbers(size, 2);
      std::vector<double> y(x.size()), added = doubles(old);
      for (std::int64_t b = 0; b < batch; ++b)
        for (std::int64_t r = 0; r < rows; ++r)
          for (std::int64_t c = 0; c < columns; ++c) {
            const double value = double(x[std::size_t((b * rows + r) * columns + c)]);
            y[std::size_t((b * columns + c) * rows + r)] = value;
            added[std::size_t((b * columns + c) * rows + r)] += value;
          }
      in_every_order([&] {
        const DeviceArray<float> dev_x(x), dev_y(x.size()), dev_added(old);
        gpu().transpose(batch, rows, columns, dev_x.data(), dev_y.data(), false);
        gpu().transpose(batch, rows, columns, dev_x.data(), dev_added.data(), true);
        CHECK(largest_error(dev_y, y) == 0);
        CHECK(largest_error(dev_added, added) <= unit);
      });
    }
}

TEST_CASE("channels of one image into another leave the others alone") {
  struct Copy {
    int count, from_channels, from_first, to_channels, to_first;
  };
  for (const Copy& c : {Copy{4, 8, 4, 12, 8}, Copy{3, 5, 1, 7, 2}, Copy{1, 1, 0, 1, 0}, Copy{4, 4, 0, 6, 1},
                        Copy{3, 0, 0, 5, 1}, Copy{4, 0, 0, 4, 0}, Copy{1, 0, 0, 2, 0}}) {
    const std::int64_t pixels = 35;
    const Numbers x = numbers(std::max(pixels * c.from_channels, std::int64_t{c.count}), 1),
                  old = numbers(pixels * c.to_channels, 2);
    std::vector<double> y = doubles(old), added = doubles(old);
    for (std::int64_t p = 0; p < pixels; ++p)
      for (int k = 0; k < c.count; ++k) {
        const double value = double(x[std::size_t(p * c.from_channels + c.from_first + k)]);
        y[std::size_t(p * c.to_channels + c.to_first + k)] = value;
        added[std::size_t(p * c.to_channels + c.to_first + k)] += value;
      }
    in_random_order([&] {
      const DeviceArray<float> dev_x(x), dev_y(old), dev_added(old);
      gpu().copy_channels(pixels, c.count, dev_x.data(), c.from_channels, c.from_first, dev_y.data(), c.to_channels,
                          c.to_first, false);
      gpu().copy_channels(pixels, c.count, dev_x.data(), c.from_channels, c.from_first, dev_added.data(), c.to_channels,
                          c.to_first, true);
      CHECK(largest_error(dev_y, y) == 0);
      CHECK(largest_error(dev_added, added) <= unit);
    });
  }
  const DeviceArray<float> x(8);
  CHECK_THROWS_AS(gpu().copy_channels(1, 4, x.data(), 4, 1, x.data(), 8, 0, false), strata::ShapeError);
}
