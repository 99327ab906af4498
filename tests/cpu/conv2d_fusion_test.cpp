// What a convolution does besides: normalising its input where it reads it, statistics of what it writes, and both on
// the way back. Each against the same in double precision by separate passes. Errors are measured against the largest
// sum of magnitudes of the convolution that made the result.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "largest.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/conv2d.hpp"

namespace {

namespace st = strata;

std::string describe(const st::Conv2dProblem& p) {
  return st::concat(p.n, "x", p.in, "x", p.h, "x", p.w, " -> ", p.out, ", kernel ", p.kernel, ", padding ", p.padding,
                    ", dilation ", p.dilation);
}

const std::vector<st::Conv2dProblem>& problems() {
  static const std::vector<st::Conv2dProblem> all = {
      {.n = 2, .h = 8, .w = 12, .in = 16, .out = 16},                   // whole tiles
      {.n = 3, .h = 21, .w = 14, .in = 32, .out = 64},                  // tiles that stand out of the image
      {.n = 2, .h = 9, .w = 11, .in = 24, .out = 20, .padding = 0},     // channels that fill no vector
      {.h = 13, .w = 6, .in = 70, .out = 100, .padding = 2},            // several chunks of channels
      {.n = 2, .h = 7, .w = 9, .in = 3, .out = 5},                      // direct
      {.n = 2, .h = 19, .w = 17, .in = 16, .out = 24, .padding = 2, .dilation = 2},  // every second pixel
      {.n = 2, .h = 14, .w = 9, .in = 20, .out = 16, .kernel = 5, .padding = 2},  // a kernel in parts
      {.n = 2, .h = 8, .w = 8, .in = 6, .out = 12, .kernel = 5, .stride = 2, .padding = 2},
      {.n = 2, .h = 1, .w = 1, .in = 4, .out = 3, .kernel = 1, .padding = 0},
      {.n = 2, .h = 9, .w = 11, .in = 130, .out = 255},                 // many weights, one block of tiles
      {.n = 2, .h = 29, .w = 19, .in = 136, .out = 248},                // the same, several
      {.n = 5, .h = 23, .w = 30, .in = 256, .out = 129},                // and packed
  };
  return all;
}

template <class T>
std::vector<T> normal(std::int64_t count, std::uint32_t stream, double mean = 0) {
  st::Rng rng(7, stream);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = T(float(rng.normal() + mean));
  return values;
}

/// The numbers of a batch norm with any scale, also negative and zero ones.
template <class T>
struct Numbers {
  explicit Numbers(int channels)
      : scale(normal<T>(channels, 11)), shift(normal<T>(channels, 12)), mean(normal<T>(channels, 13)),
        slope(normal<T>(channels, 14)), offset(normal<T>(channels, 15)) {
    scale[0] = 0;
  }
  st::ChannelAffine<T> affine(st::Activation activation) const { return {scale.data(), shift.data(), activation}; }
  std::vector<T> scale, shift, mean, slope, offset;
};

template <class T>
void check_close(const std::vector<T>& got, const std::vector<double>& wanted, double tolerance) {
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    strata_test::keep_largest(largest, std::abs(double(got[i]) - wanted[i]));
  CHECK(largest <= tolerance);
}

std::vector<double> magnitudes(std::vector<double> values) {
  for (double& value : values) value = std::abs(value);
  return values;
}
double largest(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

template <class T>
constexpr double epsilon = std::is_same_v<T, float> ? 5e-6 : 1e-13;
template <class T>
std::vector<T> unwritten(std::int64_t count) {
  return std::vector<T>(std::size_t(count), std::numeric_limits<T>::quiet_NaN());
}

template <class T>
void check_forward(const st::Conv2dProblem& p, st::Activation activation) {
  CAPTURE(describe(p));
  const Numbers<T> numbers(p.in);
  const Numbers<double> exact(p.in);
  const auto x = normal<T>(p.input_size(), 1, 3.0), weight = normal<T>(p.weight_size(), 2), bias = normal<T>(p.out, 3);
  std::vector<double> normalised(x.begin(), x.end());
  st::cpu::batch_norm_apply(p.n * p.h * p.w, p.in, normalised.data(), exact.scale.data(), exact.shift.data(),
                            normalised.data(), activation);
  const std::vector<double> w(weight.begin(), weight.end()), b(bias.begin(), bias.end());
  std::vector<double> wanted(std::size_t(p.output_size())), magnitude = wanted, mean(std::size_t(p.out)),
                                                            variance = mean;
  st::cpu::conv2d_forward<double>(p, normalised.data(), w.data(), b.data(), wanted.data(), activation);
  st::cpu::conv2d_forward<double>(p, magnitudes(normalised).data(), magnitudes(w).data(), magnitudes(b).data(),
                                  magnitude.data());
  const std::int64_t pixels = p.n * p.out_h() * p.out_w();
  st::cpu::batch_norm_statistics(pixels, p.out, wanted.data(), mean.data(), variance.data());

  auto y = unwritten<T>(p.output_size());
  std::vector<double> got_mean(std::size_t(p.out), NAN), got_variance = got_mean;
  const st::ChannelStatistics statistics{got_mean.data(), got_variance.data()};
  st::cpu::conv2d_forward<T>(p, x.data(), weight.data(), bias.data(), y.data(), activation,
                             {numbers.affine(activation), statistics});
  const double tolerance = epsilon<T> * largest(magnitude);
  check_close(y, wanted, tolerance);
  check_close(got_mean, mean, tolerance);
  for (std::size_t c = 0; c < mean.size(); ++c)
    CHECK(std::abs(got_variance[c] - variance[c]) <= 2 * tolerance * std::sqrt(variance[c]) + tolerance * tolerance);

  auto same = unwritten<T>(p.output_size());  // without statistics, and with them
  st::cpu::conv2d_forward<T>(p, x.data(), weight.data(), bias.data(), same.data(), activation,
                             {numbers.affine(activation), {}});
  CHECK(std::memcmp(y.data(), same.data(), y.size() * sizeof(T)) == 0);
}

template <class T>
void check_backward(const st::Conv2dProblem& p, st::Activation activation, bool rectified) {
  CAPTURE(describe(p));
  const std::int64_t pixels = p.n * p.out_h() * p.out_w();
  const auto x = normal<T>(p.input_size(), 1), weight = normal<T>(p.weight_size(), 2);
  const auto y = normal<T>(p.output_size(), 3), dy = normal<T>(p.output_size(), 4);
  const Numbers<T> in(p.in), out(p.out);
  const Numbers<double> exact_in(p.in), exact_out(p.out);
  const auto parameters = [&](const auto& numbers, const auto* image) {
    using U = std::remove_cvref_t<decltype(*image)>;
    return st::NormGradient<U>{image, numbers.affine(activation), numbers.mean.data(), numbers.slope.data(),
                               numbers.offset.data(), rectified};
  };

  const std::vector<double> w(weight.begin(), weight.end()), z(y.begin(), y.end());
  std::vector<double> normalised(x.begin(), x.end()), dz(dy.begin(), dy.end());
  st::cpu::batch_norm_apply(p.n * p.h * p.w, p.in, normalised.data(), exact_in.scale.data(), exact_in.shift.data(),
                            normalised.data(), activation);
  st::cpu::batch_norm_backward_input(pixels, p.out, parameters(exact_out, z.data()), dz.data(), dz.data(), false);
  std::vector<double> dw(w.size()), db(std::size_t(p.out)), dw_magnitude = dw, db_magnitude = db;
  st::cpu::conv2d_backward_weight<double>(p, normalised.data(), dz.data(), dw.data(), db.data(), false, {});
  st::cpu::conv2d_backward_weight<double>(p, magnitudes(normalised).data(), magnitudes(dz).data(), dw_magnitude.data(),
                                          db_magnitude.data(), false, {});

  std::vector<T> gradient = dy;
  auto got_dw = unwritten<T>(p.weight_size()), got_db = unwritten<T>(p.out);
  st::cpu::conv2d_backward_weight<T>(p, x.data(), gradient.data(), got_dw.data(), got_db.data(), false,
                                     {in.affine(activation), parameters(out, y.data())});
  check_close(gradient, dz, epsilon<T> * 10 * largest(magnitudes(dz)));
  check_close(got_dw, dw, epsilon<T> * largest(dw_magnitude));
  check_close(got_db, db, epsilon<T> * largest(db_magnitude));

  // The gradient for the input, with the sums that a batch norm in front needs.
  const std::vector<double> exact_x(x.begin(), x.end());
  std::vector<double> dx(exact_x.size()), magnitude = dx, sum_g(std::size_t(p.in)), sum_gx = sum_g;
  st::cpu::conv2d_backward_input<double>(p, dz.data(), w.data(), dx.data(), false);
  st::cpu::conv2d_backward_input<double>(p, magnitudes(dz).data(), magnitudes(w).data(), magnitude.data(), false);
  st::cpu::batch_norm_backward_sums(p.n * p.h * p.w, p.in, exact_x.data(), dx.data(), exact_in.scale.data(),
                                    exact_in.shift.data(), exact_in.mean.data(), activation, sum_g.data(),
                                    sum_gx.data());
  auto got_dx = unwritten<T>(p.input_size());
  std::vector<double> got_g(std::size_t(p.in), NAN), got_gx = got_g;
  st::cpu::conv2d_backward_input<T>(p, gradient.data(), weight.data(), got_dx.data(), false,
                                    {x.data(), in.affine(activation), in.mean.data(), got_g.data(), got_gx.data()});
  const double tolerance = epsilon<T> * largest(magnitude), per_channel = tolerance * double(p.n * p.h * p.w);
  for (std::size_t i = 0; i < dx.size(); ++i) {
    const std::size_t c = i % std::size_t(p.in);
    const bool passes =
        activation == st::Activation::none || exact_x[i] * exact_in.scale[c] + exact_in.shift[c] > 0;
    const double error = std::abs(double(got_dx[i]) - dx[i]);
    CHECK((error <= tolerance || (!passes && got_dx[i] == T(0))));
  }
  check_close(got_g, sum_g, per_channel);
  check_close(got_gx, sum_gx, 5 * per_channel);

  // Added to a gradient that is there already, sums and all.
  std::vector<T> more = normal<T>(p.input_size(), 9);
  for (std::size_t i = 0; i < dx.size(); ++i) dx[i] += double(more[i]);
  st::cpu::batch_norm_backward_sums(p.n * p.h * p.w, p.in, exact_x.data(), dx.data(), exact_in.scale.data(),
                                    exact_in.shift.data(), exact_in.mean.data(), activation, sum_g.data(),
                                    sum_gx.data());
  st::cpu::conv2d_backward_input<T>(p, gradient.data(), weight.data(), more.data(), true,
                                    {x.data(), in.affine(activation), in.mean.data(), got_g.data(), got_gx.data()});
  check_close(more, dx, tolerance);
  check_close(got_g, sum_g, per_channel);
  check_close(got_gx, sum_gx, 5 * per_channel);
}

}  // namespace

TEST_CASE_TEMPLATE("a convolution normalises its input and gathers the statistics of its result", T, float, double) {
  for (const st::Conv2dProblem& p : problems())
    for (const auto activation : {st::Activation::none, st::Activation::relu}) check_forward<T>(p, activation);
}

TEST_CASE_TEMPLATE("the gradients of a convolution between batch norms", T, float, double) {
  for (const st::Conv2dProblem& p : problems())
    for (const auto activation : {st::Activation::none, st::Activation::relu})
      check_backward<T>(p, activation, activation == st::Activation::relu);
}

TEST_CASE("statistics and sums have the same bits for any number of threads") {
  const st::Conv2dProblem p{.n = 3, .h = 22, .w = 33, .in = 24, .out = 24};
  const Numbers<float> numbers(p.in);
  const auto x = normal<float>(p.input_size(), 1), weight = normal<float>(p.weight_size(), 2);
  const int threads_before = st::num_threads();
  std::vector<double> results[3];
  for (int threads = 1; threads <= 3; ++threads) {
    st::set_num_threads(threads);
    std::vector<double>& all = results[threads - 1];
    all.resize(std::size_t(4 * p.out));
    auto y = unwritten<float>(p.output_size());
    const st::ChannelStatistics statistics{all.data(), all.data() + p.out};
    st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), nullptr, y.data(), st::Activation::relu,
                                   {{}, statistics});
    auto dx = unwritten<float>(p.input_size());
    st::cpu::conv2d_backward_input<float>(p, x.data(), weight.data(), dx.data(), false,
                                          {x.data(), numbers.affine(st::Activation::relu), numbers.mean.data(),
                                           all.data() + 2 * p.out, all.data() + 3 * p.out});
  }
  for (int i = 1; i < 3; ++i)
    CHECK(std::memcmp(results[0].data(), results[i].data(), results[0].size() * sizeof(double)) == 0);
  st::set_num_threads(threads_before);
}
