// Batch normalisation of the CUDA backend against the formulas in double.
#include <algorithm>

#include "device_test.hpp"

using namespace device_test;
using strata::Activation, strata::NormalisationRows;

namespace {

struct Rows {
  DeviceArray<float> numbers;
  int channels;
  explicit Rows(int c) : numbers(std::size_t(4 * c)), channels(c) {}
  NormalisationRows rows() const {
    float* const first = numbers.data();
    return {first, first + channels, first + 2 * channels, first + 3 * channels};
  }
};

void check(std::int64_t pixels, int channels, float mean, Activation activation) {
  CAPTURE(pixels);
  CAPTURE(channels);
  CAPTURE(mean);
  CAPTURE(int(activation));
  const std::int64_t size = pixels * channels;
  const std::size_t c_count = std::size_t(channels), count = std::size_t(size);
  Numbers x = numbers(size, 1);
  for (float& v : x) v += mean;
  const Numbers weight = numbers(channels, 2), bias = numbers(channels, 3), dy = numbers(size, 4),
                old = numbers(size, 5);
  const Numbers old_mean = numbers(channels, 6), old_var(c_count, 2.0f), old_dweight = numbers(channels, 7);
  const double eps = 1e-5, momentum = 0.1;

  std::vector<double> m(c_count), v(c_count), inverse(c_count), y(count), g(count), sum_g(c_count), sum_gx(c_count);
  std::vector<double> running_mean(c_count), running_var(c_count), dx(count), dx_added = doubles(old),
                                                                              dweight = doubles(old_dweight);
  for (std::size_t i = 0; i < count; ++i) m[i % c_count] += double(x[i]) / double(pixels);
  for (std::size_t i = 0; i < count; ++i) v[i % c_count] += std::pow(double(x[i]) - m[i % c_count], 2) / double(pixels);
  for (std::size_t c = 0; c < c_count; ++c) {
    inverse[c] = 1 / std::sqrt(v[c] + eps);
    running_mean[c] = (1 - momentum) * double(old_mean[c]) + momentum * m[c];
    running_var[c] = (1 - momentum) * 2.0 + momentum * v[c] * double(pixels) / double(pixels - 1);
  }
  const double margin = 1e-4 * (1 + std::abs(double(mean)));
  // to the corner of the ReLU: either side is right, so these pixels are given no gradient
  std::vector<bool> near(count);
  Numbers masked_dy = dy;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t c = i % c_count;
    const double xhat = (double(x[i]) - m[c]) * inverse[c], z = xhat * double(weight[c]) + double(bias[c]);
    if (activation == Activation::relu && std::abs(z) < margin) masked_dy[i] = 0;
    y[i] = activation == Activation::relu ? std::max(z, 0.0) : z;
    g[i] = activation == Activation::relu && z <= 0 ? 0 : double(masked_dy[i]);
    sum_g[c] += g[i], sum_gx[c] += g[i] * xhat;
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t c = i % c_count;
    const double xhat = (double(x[i]) - m[c]) * inverse[c];
    dx[i] = double(weight[c]) * inverse[c] * (g[i] - sum_g[c] / double(pixels) - xhat * sum_gx[c] / double(pixels));
    dx_added[i] += dx[i];
  }
  for (std::size_t c = 0; c < c_count; ++c) dweight[c] += sum_gx[c];

  // What a mean far from 0 costs, in units. A channel's mean passes some thirteen roundings of its own size (a thread's
  // sum of eight, the threads' merges): of either sign, so four in all. As a part of the standard deviation that is how
  // far xhat is off, `centre`. The variance is a sum of squared distances between means of parts, each off by that
  // much: it is off by 2 * distance * error, averaged over some hundred parts whose distances are a third of the
  // deviation, in each of eight rounds of merges: a third of |mean| / deviation in the mean; three times that,
  // `spread`, as a part of the variance.
  const double deviation = std::sqrt(*std::min_element(v.begin(), v.end()) + eps),
               size_of_mean = std::abs(double(mean));
  const double mean_error = 4 * (1 + size_of_mean), centre = mean_error / deviation,
               spread = 10 + size_of_mean / deviation;
  const Rows norm(channels);
  const DeviceArray<float> dev_x(x), dev_weight(weight), dev_bias(bias), dev_dy(masked_dy), dev_y(count);
  const DeviceArray<float> dev_mean(old_mean), dev_var(old_var), dev_dweight(old_dweight), dev_dbias(c_count),
      dev_added(old);
  const DeviceArray<std::int64_t> batches(std::vector<std::int64_t>{41});
  gpu().batch_norm_statistics(pixels, channels, dev_x.data(), dev_weight.data(), dev_bias.data(), eps, momentum,
                              dev_mean.data(), dev_var.data(), batches.data(), norm.rows());
  gpu().batch_norm_apply(pixels, channels, dev_x.data(), norm.rows(), dev_y.data(), activation);
  gpu().batch_norm_backward(pixels, channels, norm.rows(), activation, dev_x.data(), dev_dy.data(),
                            {dev_dweight.data(), true}, {dev_dbias.data(), false}, {dev_added.data(), true});
  gpu().batch_norm_backward(pixels, channels, norm.rows(), activation, dev_x.data(), dev_dy.data(), {}, {},
                            {dev_dy.data(), false});  // in place
  CHECK(batches.download()[0] == 42);
  const Numbers rows = norm.numbers.download(), got_mean = dev_mean.download(), got_var = dev_var.download();
  for (std::size_t c = 0; c < c_count; ++c) {
    CHECK(std::abs(double(rows[2 * c_count + c]) - m[c]) <= unit * mean_error);
    CHECK(std::abs(double(rows[3 * c_count + c]) - inverse[c]) <= unit * (4 + spread / 2) * inverse[c]);
    // The running averages take a tenth of that, and three roundings of what they add up.
    const double parts_of_mean = (1 - momentum) * std::abs(double(old_mean[c])) + momentum * std::abs(m[c]);
    CHECK(std::abs(double(got_mean[c]) - running_mean[c]) <= unit * (momentum * mean_error + 3 * parts_of_mean));
    CHECK(std::abs(double(got_var[c]) - running_var[c]) <=
          unit * (spread * (running_var[c] - (1 - momentum) * 2.0) + 3 * running_var[c]));
  }
  // y is off by xhat's error, by two roundings of mean * scale in `shift` (half of `centre`), and by the scale's.
  CHECK(largest_error(dev_y, y) <= unit * (10 + 1.5 * centre + spread));
  CHECK(largest_error(dev_dweight, dweight, double(pixels)) <= unit * (20 + centre + spread / 2));
  CHECK(largest_error(dev_dbias, sum_g, double(pixels)) <= 20 * unit);
  const double dx_error = 20 + (centre + spread) / (2 * deviation);  // the averages that it takes off are below a half
  CHECK(largest_error(dev_dy, dx, 2) <= unit * dx_error);
  CHECK(largest_error(dev_added, dx_added, 2) <= unit * dx_error);
}

}  // namespace

TEST_CASE("training: statistics, running averages, gradients") {
  in_every_order([] {
    check(2, 1, 0, Activation::none);
    check(35, 5, 0, Activation::relu);
    check(300, 8, 0, Activation::relu);
  });
  in_random_order([] {
    check(1100, 4, 0, Activation::none);   // several chunks
    check(70, 132, 0, Activation::relu);   // two groups of channels
    check(9, 67, 0, Activation::none);
  });
}

TEST_CASE("a mean far from 0 does not spoil the variance") {
  in_random_order([] { check(600, 8, 300, Activation::none); });  // E[x^2] - E[x]^2 in float32 would lose all of it
}

TEST_CASE("inference rows, and a normalisation folded into a convolution") {
  for (const int channels : {1, 6, 40}) {
    const std::size_t count = std::size_t(channels);
    const std::int64_t taps = 9 * 3;
    const Numbers weight = numbers(channels, 1), bias = numbers(channels, 2), mean = numbers(channels, 3);
    Numbers var = numbers(channels, 4);
    for (float& v : var) v = std::abs(v) + 0.1f;
    const Numbers conv = numbers(channels * taps, 5), conv_bias = numbers(channels, 6);
    std::vector<double> rows(4 * count), folded(conv.size()), shift(count), plain_shift(count);
    for (std::size_t c = 0; c < count; ++c) {
      const double inverse = 1 / std::sqrt(double(var[c]) + 1e-5), scale = double(weight[c]) * inverse;
      rows[c] = scale, rows[count + c] = double(bias[c]) - double(mean[c]) * scale;
      rows[2 * count + c] = double(mean[c]), rows[3 * count + c] = inverse;
      for (std::size_t t = 0; t < std::size_t(taps); ++t)
        folded[c * std::size_t(taps) + t] = double(conv[c * std::size_t(taps) + t]) * scale;
      plain_shift[c] = rows[count + c], shift[c] = rows[count + c] + double(conv_bias[c]) * scale;
    }
    in_random_order([&] {
      const Rows norm(channels);
      const DeviceArray<float> w(weight), b(bias), m(mean), v(var), k(conv), kb(conv_bias), out(conv.size()),
          out_bias(count);
      gpu().batch_norm_inference(channels, w.data(), b.data(), m.data(), v.data(), 1e-5, norm.rows());
      CHECK(largest_error(norm.numbers, rows) <= 4 * unit);
      gpu().batch_norm_fold(channels, taps, k.data(), kb.data(), norm.rows(), out.data(), out_bias.data());
      CHECK(largest_error(out, folded) <= 4 * unit);
      CHECK(largest_error(out_bias, shift) <= 6 * unit);
      gpu().batch_norm_fold(channels, taps, k.data(), nullptr, norm.rows(), out.data(), out_bias.data());
      CHECK(largest_error(out_bias, plain_shift) <= 6 * unit);
    });
  }
}

TEST_CASE("one value per channel has no variance: an error") {
  const DeviceArray<float> x(8);
  CHECK_THROWS_AS(
      gpu().batch_norm_statistics(1, 2, x.data(), x.data(), x.data(), 1e-5, 0.1, x.data(), x.data(), nullptr, {}),
      strata::ShapeError);
}
