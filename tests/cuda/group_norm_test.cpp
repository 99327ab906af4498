// Normalisation of every image, and of every pixel, on the CUDA backend against the formulas in double.
#include <algorithm>
#include <memory>

#include "device_test.hpp"

using namespace device_test;
using strata::GroupNormProblem;

namespace {

/// x, dy and the parameters of a normalisation, and what is wanted of it: each set of numbers that share a mean and a
/// variance has a name, set_of(i).
struct Case {
  template <class SetOf>
  Case(std::int64_t count, int channels_, std::int64_t sets, float mean, double eps, bool affine, SetOf&& set_of)
      : channels(channels_),
        x(numbers(count, 1)),
        dy(numbers(count, 2)),
        old(numbers(count, 3)),
        weight(numbers(channels, 4)),
        bias(numbers(channels, 5)),
        old_weight(numbers(channels, 6)),
        old_bias(numbers(channels, 7)),
        means(std::size_t(sets)),
        inverses(std::size_t(sets)),
        y(count),
        dx(count),
        dx_added(count),
        dweight(channels),
        dbias(channels) {
    for (float& v : x) v += mean;
    const auto at = [&](std::int64_t i) { return std::size_t(set_of(i)); };
    const double each = double(count) / double(sets);
    std::vector<double> variances(means.size()), sum_g(means.size()), sum_gx(means.size()), size_g(means.size());
    for (std::int64_t i = 0; i < count; ++i) means[at(i)] += double(x[std::size_t(i)]) / each;
    for (std::int64_t i = 0; i < count; ++i)
      variances[at(i)] += std::pow(double(x[std::size_t(i)]) - means[at(i)], 2) / each;
    for (std::size_t s = 0; s < means.size(); ++s) inverses[s] = 1 / std::sqrt(variances[s] + eps);
    // What a mean far from 0 costs, in units: see batch_norm_test.cpp.
    const double deviation = std::sqrt(*std::min_element(variances.begin(), variances.end()) + eps);
    mean_error = 4 * (1 + std::abs(double(mean)));
    centre = mean_error / deviation, spread = 10 + std::abs(double(mean)) / deviation;
    const auto w = [&](std::int64_t i) { return affine ? double(weight[std::size_t(i % channels)]) : 1.0; };
    const auto xhat = [&](std::int64_t i) { return (double(x[std::size_t(i)]) - means[at(i)]) * inverses[at(i)]; };
    dweight.add(old_weight), dbias.add(old_bias), dx_added.add(old);
    for (std::int64_t i = 0; i < count; ++i) {
      const double g = double(dy[std::size_t(i)]);
      y.add(i, xhat(i) * w(i));
      y.add(i, affine ? double(bias[std::size_t(i % channels)]) : 0.0);
      y.magnitude[std::size_t(i)] += std::abs(w(i));  // xhat is off by a part of the deviation, not of itself
      dweight.add(i % channels, g * xhat(i));
      dweight.magnitude[std::size_t(i % channels)] += std::abs(g);
      dbias.add(i % channels, g);
      sum_g[at(i)] += w(i) * g / each, sum_gx[at(i)] += w(i) * g * xhat(i) / each,
          size_g[at(i)] += std::abs(w(i) * g) / each;
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const double inverse = inverses[at(i)];
      for (Reference* const to : {&dx, &dx_added}) {
        to->add(i, inverse * w(i) * double(dy[std::size_t(i)]));
        to->add(i, -inverse * sum_g[at(i)]);
        to->add(i, -inverse * xhat(i) * sum_gx[at(i)]);
        to->magnitude[std::size_t(i)] += inverse * size_g[at(i)] * (1 + std::abs(xhat(i)));
      }
    }
  }

  std::int64_t channels;
  Numbers x, dy, old, weight, bias, old_weight, old_bias;
  std::vector<double> means, inverses;
  Reference y, dx, dx_added, dweight, dbias;
  double mean_error = 0, centre = 0, spread = 0;  ///< in units
};

/// What a normalisation on the device gave.
struct Given {
  DeviceArray<float> x, dy, weight, bias, y, dx, dx_added, dweight, dbias;
  explicit Given(const Case& c)
      : x(c.x),
        dy(c.dy),
        weight(c.weight),
        bias(c.bias),
        y(c.x.size()),
        dx(c.x.size()),
        dx_added(c.old),
        dweight(c.old_weight),
        dbias(c.old_bias) {}
  void check(const Case& c, bool affine) const {
    CHECK(largest_error(y, c.y) <= unit * (10 + 1.5 * c.centre + c.spread));
    CHECK(largest_error(dx, c.dx) <= unit * (20 + c.centre + c.spread));
    CHECK(largest_error(dx_added, c.dx_added) <= unit * (20 + c.centre + c.spread));
    if (!affine) return;
    CHECK(largest_error(dweight, c.dweight) <= unit * (20 + c.centre + c.spread));
    CHECK(largest_error(dbias, c.dbias) <= 20 * unit);
  }
};

void check_mean_and_deviation(const Case& c, std::size_t set, float mean, float inverse) {
  CHECK(std::abs(double(mean) - c.means[set]) <= unit * c.mean_error);
  CHECK(std::abs(double(inverse) - c.inverses[set]) <= unit * (4 + c.spread / 2) * c.inverses[set]);
}

void check_groups(const GroupNormProblem& p, float mean = 0, bool affine = true) {
  const std::string shape =
      strata::concat(p.n, " images of ", p.pixels, " pixels, ", p.channels, " channels in ", p.groups, " groups");
  CAPTURE(shape);
  CAPTURE(mean);
  const std::int64_t each = p.channels / p.groups;
  const Case wanted(p.n * p.pixels * p.channels, p.channels, p.n * p.groups, mean, p.eps, affine,
                    [&](std::int64_t i) { return i / (p.pixels * p.channels) * p.groups + i % p.channels / each; });
  const Given given(wanted);
  const DeviceArray<float> kept(std::size_t(p.numbers()));
  const float *const weight = affine ? given.weight.data() : nullptr, *const bias =
                                                                          affine ? given.bias.data() : nullptr;
  gpu().group_norm_forward(p, given.x.data(), weight, bias, given.y.data(), kept.data());
  gpu().group_norm_backward(p, given.x.data(), kept.data(), given.dy.data(), {}, {}, {given.dx.data(), false});
  gpu().group_norm_backward(p, given.x.data(), kept.data(), given.dy.data(),
                            affine ? strata::GradientTarget<>{given.dweight.data(), true} : strata::GradientTarget<>{},
                            affine ? strata::GradientTarget<>{given.dbias.data(), true} : strata::GradientTarget<>{},
                            {given.dx_added.data(), true});
  given.check(wanted, affine);
  const Numbers rows = kept.download();
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t c = 0; c < p.channels; ++c)
      check_mean_and_deviation(wanted, std::size_t(n * p.groups + c / each),
                               rows[std::size_t((n * 4 + 2) * p.channels + c)],
                               rows[std::size_t((n * 4 + 3) * p.channels + c)]);
  if (affine) {  // without old gradients, and without one for x
    const DeviceArray<float> dweight(wanted.weight.size()), dbias(wanted.bias.size());
    gpu().group_norm_backward(p, given.x.data(), kept.data(), given.dy.data(), {dweight.data(), false},
                              {dbias.data(), false}, {});
    Reference fresh_weight = wanted.dweight, fresh_bias = wanted.dbias;
    for (std::size_t c = 0; c < wanted.weight.size(); ++c)
      fresh_weight.value[c] -= double(wanted.old_weight[c]), fresh_bias.value[c] -= double(wanted.old_bias[c]);
    CHECK(largest_error(dweight, fresh_weight) <= unit * (20 + wanted.centre + wanted.spread));
    CHECK(largest_error(dbias, fresh_bias) <= 20 * unit);
  }
}

void check_pixels(std::int64_t pixels, int channels, float mean = 0, std::int64_t shift = 0) {
  CAPTURE(pixels);
  CAPTURE(channels);
  CAPTURE(shift);
  const double eps = 1e-6;
  const Case wanted(pixels * channels, channels, pixels, mean, eps, true, [&](std::int64_t i) { return i / channels; });
  const Given given(wanted);
  const DeviceArray<float> kept(std::size_t(2 * pixels)), plain(wanted.x.size());
  // With a shift x does not begin at a multiple of 16 bytes.
  Numbers moved(std::size_t(shift), 0.0f);
  moved.insert(moved.end(), wanted.x.begin(), wanted.x.end());
  const DeviceArray<float> moved_x(moved);
  const float* const x = moved_x.data() + shift;
  gpu().layer_norm_forward(pixels, channels, eps, x, given.weight.data(), given.bias.data(), given.y.data(),
                           kept.data());
  gpu().layer_norm_forward(pixels, channels, eps, x, given.weight.data(), given.bias.data(), plain.data(), nullptr);
  gpu().layer_norm_backward(pixels, channels, x, kept.data(), given.weight.data(), given.dy.data(), {}, {},
                            {given.dx.data(), false});
  gpu().layer_norm_backward(pixels, channels, x, kept.data(), given.weight.data(), given.dy.data(),
                            {given.dweight.data(), true}, {given.dbias.data(), true}, {given.dx_added.data(), true});
  given.check(wanted, true);
  CHECK(plain.download() == given.y.download());
  const Numbers rows = kept.download();
  for (std::size_t pixel = 0; pixel < std::size_t(pixels); ++pixel)
    check_mean_and_deviation(wanted, pixel, rows[2 * pixel], rows[2 * pixel + 1]);
}

}  // namespace

TEST_CASE("groups of channels of an image") {
  in_every_order([] {
    check_groups({.n = 2, .pixels = 35, .channels = 6, .groups = 2});
    check_groups({.n = 3, .pixels = 12, .channels = 8, .groups = 4});
  });
  in_random_order([] {
    check_groups({.n = 1, .pixels = 1, .channels = 5, .groups = 1});
    check_groups({.n = 2, .pixels = 2100, .channels = 3, .groups = 1});              // chunks, the last of a few pixels
    // more channels in a group than lanes
    check_groups({.n = 1, .pixels = 300, .channels = 68, .groups = 2});
    check_groups({.n = 2, .pixels = 9, .channels = 260, .groups = 1, .eps = 1e-3});  // and than threads
    check_groups({.n = 2, .pixels = 130, .channels = 132, .groups = 33});
  });
}

TEST_CASE("each channel of an image, without weight and bias") {
  in_every_order([] { check_groups({.n = 2, .pixels = 20, .channels = 3, .groups = 3}, 0, false); });
  in_random_order([] {
    check_groups({.n = 3, .pixels = 2, .channels = 1, .groups = 1}, 0, false);
    check_groups({.n = 1, .pixels = 2500, .channels = 4, .groups = 4}, 0, false);
    check_groups({.n = 2, .pixels = 70, .channels = 40, .groups = 40}, 0, true);
  });
}

TEST_CASE("channels of each pixel") {
  in_every_order([] {
    check_pixels(35, 6);
    check_pixels(20, 8);
  });
  in_random_order([] {
    check_pixels(1, 2);
    check_pixels(300, 3);    // a lane to a pixel, more than one block
    check_pixels(9, 132);    // all lanes, and some twice
    check_pixels(10, 67);
    check_pixels(40, 16, 0, 1);
  });
}

TEST_CASE("a mean far from 0 does not spoil the variance of an image or a pixel") {
  in_random_order([] {
    check_groups({.n = 2, .pixels = 300, .channels = 8, .groups = 2}, 300);
    check_pixels(20, 64, 300);
  });
}

TEST_CASE("an image's numbers are its own, and the same in every order") {
  const GroupNormProblem two{.n = 2, .pixels = 40, .channels = 6, .groups = 3};
  Numbers x = numbers(two.n * two.pixels * two.channels, 1);
  const std::size_t half = x.size() / 2;
  Numbers first_y;
  in_every_order([&] {
    const DeviceArray<float> both(x), y(x.size()), kept(std::size_t(two.numbers()));
    gpu().group_norm_forward(two, both.data(), nullptr, nullptr, y.data(), kept.data());
    const Numbers given = y.download();
    if (first_y.empty()) first_y = given;
    CHECK(given == first_y);
  });
  for (std::size_t i = half; i < x.size(); ++i) x[i] = 17.0f * x[i] + 5.0f;
  const DeviceArray<float> both(x), y(x.size()), kept(std::size_t(two.numbers()));
  gpu().group_norm_forward(two, both.data(), nullptr, nullptr, y.data(), kept.data());
  const Numbers given = y.download();
  CHECK(std::equal(given.begin(), given.begin() + std::ptrdiff_t(half), first_y.begin()));
  CHECK(largest_error(given, std::vector<double>(first_y.begin(), first_y.end())) < 1e-4);
}

TEST_CASE("groups that do not divide the channels, and images without pixels: an error") {
  const DeviceArray<float> x(24);
  CHECK_THROWS_AS(gpu().group_norm_forward({.n = 1, .pixels = 4, .channels = 6, .groups = 4}, x.data(), nullptr,
                                           nullptr, x.data(), x.data()),
                  strata::ShapeError);
  CHECK_THROWS_AS(gpu().group_norm_forward({.n = 1, .pixels = 0, .channels = 6, .groups = 2}, x.data(), nullptr,
                                           nullptr, x.data(), x.data()),
                  strata::ShapeError);
  CHECK_THROWS_AS(gpu().layer_norm_forward(0, 6, 1e-6, x.data(), x.data(), x.data(), x.data(), nullptr),
                  strata::ShapeError);
}
