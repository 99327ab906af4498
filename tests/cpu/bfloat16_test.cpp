// Winograd's convolution with factors of bfloat16, against the same algorithm in double precision. Two factors rounded
// to 8 bits make an error of up to 2u + u^2 of each product, u = 2^-8, and one whose square is 2/3 u^2 of the product's
// at most in the mean; what both become in the result follows from the algorithm's matrices.
#include "strata/cpu/bfloat16.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "strata/cpu/conv2d.hpp"
#include "strata/strata.hpp"

namespace st = strata;

namespace {

using Matrix = std::vector<std::vector<double>>;
using Floats = std::vector<float>;
using st::Precision;
using st::cpu::Bfloat16;

const double r = std::sqrt(2.0), a = r / 2;
const Matrix from_input{{1, 0, -2.5, 0, 1, 0},      {0, -r, -2, a, 1, 0},     {0, r, -2, -a, 1, 0},
                        {0, -a, -0.5, r, 1, 0}, {0, a, -0.5, -r, 1, 0}, {0, 1, 0, -2.5, 0, 1}};
const Matrix from_filter{{1, 0, 0},           {-r / 3, -1.0 / 3, -a / 3}, {-r / 3, 1.0 / 3, -a / 3},
                         {r / 6, 1.0 / 3, r / 3}, {r / 6, -1.0 / 3, r / 3},   {0, 0, 1}};
const Matrix to_output{{1, r, r, a, a, 0}, {0, 1, -1, 1, -1, 0}, {0, a, a, r, r, 0}, {0, 0.5, -0.5, 2, -2, 1}};

/// matrix * x * matrix^T, where x has Size x Size elements.
template <int Size>
std::vector<double> both_ways(const Matrix& matrix, const std::vector<double>& x) {
  const std::size_t rows = matrix.size();
  std::vector<double> half(rows * Size, 0.0), result(rows * rows, 0.0);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t k = 0; k < Size; ++k)
      for (std::size_t j = 0; j < Size; ++j) half[i * Size + j] += matrix[i][k] * x[k * Size + j];
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t j = 0; j < rows; ++j)
      for (std::size_t k = 0; k < Size; ++k) result[i * rows + j] += half[i * Size + k] * matrix[j][k];
  return result;
}

Matrix each(Matrix matrix, double (*f)(double)) {
  for (auto& row : matrix)
    for (double& value : row) value = f(value);
  return matrix;
}
double square(double x) { return x * x; }

/// The results, what the magnitudes of the products add up to in each, and their squares.
struct Reference {
  std::vector<double> value, magnitude, variance;
};

Floats normal(std::int64_t count, std::uint32_t stream) {
  Floats values(static_cast<std::size_t>(count));
  st::Rng(7, stream).fill_normal(values, 0.1f, 1.0f);
  return values;
}

Reference reference(const st::Conv2dProblem& p, const Floats& x, const Floats& weight) {
  const auto size = std::size_t(p.output_size());
  Reference result{std::vector<double>(size), std::vector<double>(size), std::vector<double>(size)};
  const Matrix magnitudes = each(to_output, [](double v) { return std::abs(v); }), squares = each(to_output, square);
  const st::cpu::winograd::FilterParts parts(p.kernel);
  const std::int64_t depth = parts.count * p.in, d = p.dilation;
  std::vector<std::vector<double>> u(std::size_t(p.out * depth));
  for (std::int64_t o = 0; o < p.out; ++o)
    for (std::int64_t k = 0; k < depth; ++k) {
      std::vector<double> g(9, 0.0);
      for (std::int64_t t = 0; t < 9; ++t)
        if (const std::int64_t tap = parts.tap(k / p.in, t); tap >= 0)
          g[std::size_t(t)] = double(weight[std::size_t((o * p.kernel * p.kernel + tap) * p.in + k % p.in)]);
      u[std::size_t(o * depth + k)] = both_ways<3>(from_filter, g);
    }
  const st::cpu::winograd::Tiles tiles(p.n, p.out_h(), p.out_w(), d);
  for (std::int64_t t = 0; t < tiles.count; ++t) {
    const auto place = tiles[t];
    std::vector<std::vector<double>> v;
    for (std::int64_t k = 0; k < depth; ++k) {
      std::vector<double> pixels(36, 0.0);
      for (std::int64_t i = 0; i < 36; ++i) {
        const std::int64_t h = place.h - p.padding + d * (parts.begin(k / p.in / parts.across) + i / 6);
        const std::int64_t w = place.w - p.padding + d * (parts.begin(k / p.in % parts.across) + i % 6);
        if (h >= 0 && h < p.h && w >= 0 && w < p.w)
          pixels[std::size_t(i)] = double(x[std::size_t(((place.n * p.h + h) * p.w + w) * p.in + k % p.in)]);
      }
      v.push_back(both_ways<6>(from_input, pixels));
    }
    for (std::int64_t o = 0; o < p.out; ++o) {
      std::vector<double> sum(36, 0.0), magnitude(36, 0.0), variance(36, 0.0);
      for (std::size_t k = 0; k < std::size_t(depth); ++k)
        for (std::size_t i = 0; i < 36; ++i) {
          const double product = v[k][i] * u[std::size_t(o * depth) + k][i];
          sum[i] += product;
          magnitude[i] += std::abs(product);
          variance[i] += product * product;
        }
      const auto y = both_ways<6>(to_output, sum), m = both_ways<6>(magnitudes, magnitude),
                 s = both_ways<6>(squares, variance);
      for (std::int64_t i = 0; i < 16; ++i) {
        const std::int64_t h = place.h + d * (i / 4), w = place.w + d * (i % 4);
        if (h >= p.out_h() || w >= p.out_w()) continue;
        const auto to = std::size_t(((place.n * p.out_h() + h) * p.out_w() + w) * p.out + o), at = std::size_t(i);
        result.value[to] = y[at], result.magnitude[to] = m[at], result.variance[to] = s[at];
      }
    }
  }
  return result;
}

void check(const Floats& got, const Reference& wanted) {
  constexpr double u = 0x1p-8, float_errors = 1e-5;
  double mean = 0;
  bool bounded = true;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = double(got[i]) - wanted.value[i];
    bounded &= std::abs(error) <= (2 * u + u * u + float_errors) * wanted.magnitude[i];  // not so for a NaN
    mean += error * error / (2.0 / 3 * u * u * wanted.variance[i]) / double(got.size());
  }
  CHECK(bounded);
  CHECK(std::sqrt(mean) <= 1.0);  // factors that were cut instead of rounded would give about 1.5
  CHECK(std::sqrt(mean) >= 0.4);  // and unrounded ones 0
}

const std::vector<st::Conv2dProblem> problems{
    {.n = 2, .h = 8, .w = 12, .in = 8, .out = 8},
    {.h = 11, .w = 13, .in = 9, .out = 17},
    {.h = 12, .w = 7, .in = 13, .out = 70, .padding = 0},
    {.n = 3, .h = 5, .w = 6, .in = 24, .out = 40, .padding = 2},
    {.h = 13, .w = 14, .in = 65, .out = 9},
    {.n = 2, .h = 9, .w = 12, .in = 9, .out = 8, .kernel = 5, .padding = 2},
    {.h = 18, .w = 19, .in = 1, .out = 17, .kernel = 9, .padding = 4},
    {.h = 21, .w = 18, .in = 11, .out = 16, .padding = 2, .dilation = 2},
};

}  // namespace

TEST_CASE("numbers are rounded to bfloat16 to nearest, ties to even") {
  st::Rng rng(3);
  constexpr int lanes = st::simd::lanes<st::simd::Vector<float>>;
  for (int trial = 0; trial < 3000; ++trial) {
    float values[lanes];
    st::cpu::Bfloat16 stored[lanes + 1];
    stored[lanes].bits = 0x1234;
    for (float& value : values) {
      std::uint32_t bits = rng.bits();
      if (trial % 3 == 0) bits = (bits & 0xFFFF0000) | 0x8000;           // half-way
      if ((bits & 0x7F800000) == 0) bits |= 0x00800000;                  // denormals may become 0
      if (trial % 50 == 0) bits = (bits & 0x807FFFFF) | 0x7F800000;  // infinities or NaN
      if (trial % 100 == 0) bits &= 0xFF800000;
      std::memcpy(&value, &bits, 4);
    }
    st::cpu::store_factors(stored, st::simd::load<st::simd::Vector<float>>(values));
    for (int i = 0; i < lanes; ++i) {
      const std::uint32_t bits = std::uint32_t{stored[i].bits} << 16;
      float got;
      std::memcpy(&got, &bits, 4);
      if (std::isnan(values[i])) {
        CHECK(std::isnan(got));
      } else if (std::isinf(values[i]) || std::abs(values[i]) >= 0x1.FFp127f) {
        CHECK(got == std::copysign(std::numeric_limits<float>::infinity(), values[i]));
      } else {
        int exponent;
        (void)std::frexp(values[i], &exponent);
        const double unit = std::ldexp(1.0, exponent - 8);
        CHECK(double(got) == std::nearbyint(double(values[i]) / unit) * unit);
      }
    }
    CHECK(stored[lanes].bits == 0x1234);
  }
}

TEST_CASE("convolution in bfloat16 has the errors of its factors' rounding") {
  for (const st::Conv2dProblem& p : problems) {
    CAPTURE(p.in);
    CAPTURE(p.out);
    CAPTURE(p.kernel);
    REQUIRE(st::cpu::detail::use_winograd(p));
    const Floats x = normal(p.input_size(), 1), weight = normal(p.weight_size(), 2), bias = normal(p.out, 3);
    Reference wanted = reference(p, x, weight);
    Floats y(std::size_t(p.output_size()), std::numeric_limits<float>::quiet_NaN());
    st::cpu::conv2d_forward<float, Bfloat16>(p, x.data(), weight.data(), nullptr, y.data(), st::Activation::none);
    check(y, wanted);

    st::cpu::PackedWeights cache;
    Floats kept(y.size()), single(y.size()), wanted_single(y.size());
    const auto forward = [&]<class Factor>(Floats& to, Factor) {
      st::cpu::conv2d_forward_cached<float, Factor>(
          p, x.data(), cache, 5, [&] { return weight.data(); }, bias.data(), to.data(), st::Activation::relu);
    };
    for (int i = 0; i < 2; ++i) {  // with one key and another factor in between
      forward(kept, Bfloat16{});
      forward(single, float{});
    }
    st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), bias.data(), wanted_single.data(), st::Activation::relu);
    CHECK(single == wanted_single);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = std::max(0.0f, y[i] + bias[i % std::size_t(p.out)]);
    bool same = true;
    for (std::size_t i = 0; i < y.size(); ++i) same &= kept[i] == y[i];
    CHECK(same);
  }
}

TEST_CASE("the gradient for the input in bfloat16 has the errors of its factors' rounding") {
  for (const st::Conv2dProblem& p : problems) {
    if (!st::cpu::detail::use_winograd_backward_input(p)) continue;
    CAPTURE(p.in);
    CAPTURE(p.out);
    CAPTURE(p.kernel);
    const Floats dy = normal(p.output_size(), 4), weight = normal(p.weight_size(), 2);
    const st::Conv2dProblem back{.n = p.n, .h = p.out_h(), .w = p.out_w(), .in = p.out, .out = p.in, .kernel = p.kernel,
                                 .padding = p.dilation * (p.kernel - 1) - p.padding, .dilation = p.dilation};
    const std::int64_t taps = std::int64_t{p.kernel} * p.kernel;
    Floats turned(weight.size());
    for (std::int64_t o = 0; o < p.out; ++o)
      for (std::int64_t t = 0; t < taps; ++t)
        for (std::int64_t c = 0; c < p.in; ++c)
          turned[std::size_t((c * taps + taps - 1 - t) * p.out + o)] = weight[std::size_t((o * taps + t) * p.in + c)];
    Reference wanted = reference(back, dy, turned);
    Floats dx(std::size_t(p.input_size()), std::numeric_limits<float>::quiet_NaN());
    st::cpu::conv2d_backward_input<float, Bfloat16>(p, dy.data(), weight.data(), dx.data(), false);
    check(dx, wanted);
    st::cpu::conv2d_backward_input<float, Bfloat16>(p, dy.data(), weight.data(), dx.data(), true);
    for (float& value : dx) value /= 2;
    check(dx, wanted);
  }
}

TEST_CASE("convolution in bfloat16 reads through a batch norm and gathers statistics") {
  const st::Conv2dProblem p{.n = 2, .h = 21, .w = 18, .in = 24, .out = 19};
  const Floats x = normal(p.input_size(), 1), weight = normal(p.weight_size(), 2), scale = normal(p.in, 5),
               shift = normal(p.in, 6);
  const st::ChannelAffine<float> affine{scale.data(), shift.data(), st::Activation::relu};
  Floats applied(x.size()), y(std::size_t(p.output_size())), same(y.size());
  st::cpu::batch_norm_apply(p.n * p.h * p.w, p.in, x.data(), scale.data(), shift.data(), applied.data(),
                            st::Activation::relu);
  std::vector<double> mean(std::size_t(p.out)), variance(mean.size()), wanted_mean(mean.size()),
      wanted_variance(mean.size());
  st::cpu::conv2d_forward<float, Bfloat16>(p, x.data(), weight.data(), nullptr, y.data(), st::Activation::none,
                                           {affine, {mean.data(), variance.data()}});
  st::cpu::conv2d_forward<float, Bfloat16>(p, applied.data(), weight.data(), nullptr, same.data(),
                                           st::Activation::none);
  CHECK(y == same);
  st::cpu::batch_norm_statistics(p.n * p.h * p.w, int(p.out), y.data(), wanted_mean.data(), wanted_variance.data());
  for (std::size_t c = 0; c < mean.size(); ++c) {
    CHECK(mean[c] == doctest::Approx(wanted_mean[c]).epsilon(1e-5).scale(std::sqrt(wanted_variance[c])));
    CHECK(variance[c] == doctest::Approx(wanted_variance[c]).epsilon(1e-5));
  }
}

TEST_CASE("convolution in bfloat16 gives the same bits for any number of threads, and keeps a NaN") {
  const int threads_before = st::num_threads();
  const st::Conv2dProblem p{.n = 2, .h = 30, .w = 23, .in = 17, .out = 24};
  Floats x = normal(p.input_size(), 1);
  const Floats weight = normal(p.weight_size(), 2), dy = normal(p.output_size(), 3);
  std::vector<Floats> results;
  for (int threads = 1; threads <= 3; ++threads) {
    st::set_num_threads(threads);
    Floats both(std::size_t(p.output_size() + p.input_size()));
    st::cpu::conv2d_forward<float, Bfloat16>(p, x.data(), weight.data(), nullptr, both.data(), st::Activation::none);
    st::cpu::conv2d_backward_input<float, Bfloat16>(p, dy.data(), weight.data(), both.data() + p.output_size(), false);
    results.push_back(both);
  }
  st::set_num_threads(threads_before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
  x[std::size_t((4 * p.w + 4) * p.in)] = std::numeric_limits<float>::quiet_NaN();
  Floats y(std::size_t(p.output_size()));
  st::cpu::conv2d_forward<float, Bfloat16>(p, x.data(), weight.data(), nullptr, y.data(), st::Activation::relu);
  CHECK(std::isnan(y[std::size_t((4 * p.w + 4) * p.out)]));
}

TEST_CASE("a pass asks for bf16 where the program was compiled for it") {
  st::Sequential<st::Conv2d<8, 8>, st::ReLU> net;
  st::initialize(net, 1);
  st::Image<8> x(1, 12, 12);
  st::Rng(1).fill_normal(x.span(), 0, 1);
  st::Infer plain, half({.precision = Precision::bf16});
  if (st::cpu::bfloat16_instructions) {
    const auto y = net(plain, x).value(), z = net(half, x).value();
    double error = 0, size = 0;
    for (std::int64_t i = 0; i < y.size(); ++i) {
      error += square(double(y.data()[i]) - double(z.data()[i]));
      size += square(double(y.data()[i]));
    }
    CHECK(error > 1e-8 * size);  // another result
    CHECK(error < 1e-3 * size);
    st::Train train({.precision = Precision::bf16});
    const auto loss = mean(st::square(net(train, x)));
    train.backward(loss);
    CHECK(std::isfinite(loss.item()));
  } else {
    CHECK_THROWS_WITH_AS((void)net(half, x), doctest::Contains("AVX512-BF16"), st::ValueError);
  }
  st::Infer tf32({.precision = Precision::tf32});
  CHECK_THROWS_AS((void)net(tf32, x), st::ValueError);
}
