// Every convolution kernel against its definition in double precision. Errors are measured against the sum of the
// magnitudes that went into a result, since that is what rounding errors grow with.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "cpu/numbers.hpp"
#include "largest.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/conv2d.hpp"

namespace {

namespace st = strata;

std::string describe(const st::Conv2dProblem& p) {
  return st::concat(p.n, "x", p.in, "x", p.h, "x", p.w, " -> ", p.out, ", kernel ", p.kernel, ", stride ", p.stride,
                    ", padding ", p.padding, ", dilation ", p.dilation);
}

/// A result and the sum of magnitudes behind each of its elements.
struct Reference {
  explicit Reference(std::int64_t count) : value(std::size_t(count), 0.0), magnitude(std::size_t(count), 0.0) {}
  void add(std::int64_t index, double term) {
    value[std::size_t(index)] += term;
    magnitude[std::size_t(index)] += std::abs(term);
  }
  /// Gives each pixel of an N,H,W,C image the largest magnitude of its tile of 4 x 4 pixels, `dilation` apart: where
  /// Winograd's algorithm computes a tile from all pixels that it reads, they all share the rounding errors, also those
  /// that have most of their taps in the padding.
  void share_magnitudes(std::int64_t n, std::int64_t h, std::int64_t w, std::int64_t c, std::int64_t dilation) {
    std::vector<double> largest(magnitude.size(), 0.0);
    const auto for_each = [&](auto f) {
      for (std::int64_t i = 0; i < n * h * w * c; ++i) {
        const std::int64_t row = i / c / w % h, column = i / c % w;
        const std::int64_t down = row / dilation % 4 * dilation, right = column / dilation % 4 * dilation;
        f(std::size_t(i), std::size_t(i - (down * w + right) * c));
      }
    };
    for_each([&](std::size_t i, std::size_t tile) { largest[tile] = std::max(largest[tile], magnitude[i]); });
    for_each([&](std::size_t i, std::size_t tile) { magnitude[i] = largest[tile]; });
  }
  std::vector<double> value, magnitude;
};

/// Calls f(index in y, index in x, index in weight) for every product of the convolution.
template <class F>
void for_each_product(const st::Conv2dProblem& p, F f) {
  const std::int64_t rows = p.out_h(), columns = p.out_w();
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        for (std::int64_t kh = 0; kh < p.kernel; ++kh)
          for (std::int64_t kw = 0; kw < p.kernel; ++kw) {
            const std::int64_t h = i * p.stride - p.padding + kh * p.dilation;
            const std::int64_t w = j * p.stride - p.padding + kw * p.dilation;
            if (h < 0 || h >= p.h || w < 0 || w >= p.w) continue;
            const std::int64_t y = ((n * rows + i) * columns + j) * p.out, x = ((n * p.h + h) * p.w + w) * p.in;
            for (std::int64_t o = 0; o < p.out; ++o)
              for (std::int64_t c = 0; c < p.in; ++c) f(y + o, x + c, ((o * p.kernel + kh) * p.kernel + kw) * p.in + c);
          }
}

/// The largest error, as a fraction of the sum of magnitudes. Infinite where an element was not written.
template <class T>
double largest_error(const std::vector<T>& got, const Reference& wanted) {
  double largest = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    const double error = std::abs(double(got[i]) - wanted.value[i]);
    if (error > 0) largest = std::max(largest, error / wanted.magnitude[i]);
  }
  return largest;
}

template <class T>
constexpr double forward_tolerance = std::is_same_v<T, float> ? 2e-6 : 4e-15;
template <class T>
constexpr double gradient_tolerance = std::is_same_v<T, float> ? 5e-6 : 1e-14;

/// All three kernels, with and without bias, ReLU and accumulation.
template <class T>
void check_problem(const st::Conv2dProblem& p) {
  CAPTURE(describe(p));
  const auto x = normal<T>(p.input_size(), 1), weight = normal<T>(p.weight_size(), 2), bias = normal<T>(p.out, 3);
  const auto dy = normal<T>(p.output_size(), 4);
  const T unwritten = std::numeric_limits<T>::quiet_NaN();

  Reference y(p.output_size()), dx(p.input_size()), dweight(p.weight_size()), dbias(p.out);
  for_each_product(p, [&](std::int64_t yi, std::int64_t xi, std::int64_t wi) {
    const double dy_value = dy[std::size_t(yi)], x_value = x[std::size_t(xi)], w_value = weight[std::size_t(wi)];
    y.add(yi, x_value * w_value);
    dx.add(xi, dy_value * w_value);
    dweight.add(wi, dy_value * x_value);
  });
  for (std::int64_t i = 0; i < p.output_size(); ++i) dbias.add(i % p.out, dy[std::size_t(i)]);
  if (std::is_same_v<T, float> && st::cpu::detail::use_winograd(p)) {
    y.share_magnitudes(p.n, p.out_h(), p.out_w(), p.out, p.dilation);
    if (st::cpu::detail::use_winograd_backward_input(p)) dx.share_magnitudes(p.n, p.h, p.w, p.in, p.dilation);
  }

  std::vector<T> result(std::size_t(p.output_size()), unwritten);
  st::cpu::conv2d_forward<T>(p, x.data(), weight.data(), nullptr, result.data());
  CHECK(largest_error(result, y) <= forward_tolerance<T>);

  Reference with_bias = y;
  for (std::int64_t i = 0; i < p.output_size(); ++i) with_bias.add(i, bias[std::size_t(i % p.out)]);
  result.assign(result.size(), unwritten);
  st::cpu::conv2d_forward(p, x.data(), weight.data(), bias.data(), result.data());
  CHECK(largest_error(result, with_bias) <= forward_tolerance<T>);

  for (double& value : with_bias.value) value = std::max(value, 0.0);
  result.assign(result.size(), unwritten);
  st::cpu::conv2d_forward(p, x.data(), weight.data(), bias.data(), result.data(), st::Activation::relu);
  CHECK(largest_error(result, with_bias) <= forward_tolerance<T>);

  const auto check_gradient = [&](const Reference& wanted, auto kernel) {
    std::vector<T> got(wanted.value.size(), unwritten);
    kernel(got.data(), false);
    CHECK(largest_error(got, wanted) <= gradient_tolerance<T>);
    Reference sum = wanted;
    got = normal<T>(std::int64_t(got.size()), 5);
    for (std::size_t i = 0; i < got.size(); ++i) sum.add(std::int64_t(i), got[i]);
    kernel(got.data(), true);
    CHECK(largest_error(got, sum) <= gradient_tolerance<T>);
  };
  check_gradient(
      dx, [&](T* to, bool accumulate) { st::cpu::conv2d_backward_input(p, dy.data(), weight.data(), to, accumulate); });
  check_gradient(dweight, [&](T* to, bool accumulate) {
    st::cpu::conv2d_backward_weight<T>(p, x.data(), dy.data(), to, nullptr, accumulate);
  });
  check_gradient(dbias, [&](T* to, bool accumulate) {
    std::vector<T> ignored(std::size_t(p.weight_size()), T(0));
    st::cpu::conv2d_backward_weight(p, x.data(), dy.data(), ignored.data(), to, accumulate);
  });
}

const std::vector<st::Conv2dProblem>& odd_problems() {
  static const std::vector<st::Conv2dProblem> problems = {
      {},  // one pixel, one channel
      {.n = 2, .h = 5, .w = 7, .in = 3, .out = 5},
      {.h = 1, .w = 9, .in = 8, .out = 16},
      {.h = 9, .w = 1, .in = 17, .out = 1},
      {.n = 3, .h = 6, .w = 5, .in = 1, .out = 33},
      {.h = 4, .w = 4, .in = 16, .out = 8, .padding = 0},
      {.h = 3, .w = 3, .in = 20, .out = 24, .padding = 0},
      {.h = 6, .w = 7, .in = 5, .out = 7, .padding = 2},
      {.h = 2, .w = 3, .in = 2, .out = 3, .padding = 5},
      {.n = 2, .h = 7, .w = 6, .in = 9, .out = 4, .kernel = 1, .padding = 0},
      {.h = 5, .w = 5, .in = 4, .out = 6, .kernel = 1, .stride = 2, .padding = 1},
      {.n = 2, .h = 9, .w = 8, .in = 6, .out = 10, .stride = 2},
      {.h = 11, .w = 10, .in = 3, .out = 4, .kernel = 5, .stride = 3, .padding = 2},
      {.h = 3, .w = 4, .in = 3, .out = 4, .kernel = 2, .stride = 4, .padding = 0},
      {.h = 9, .w = 12, .in = 7, .out = 5, .padding = 2, .dilation = 2},
      {.h = 13, .w = 9, .in = 4, .out = 9, .kernel = 4, .stride = 2, .padding = 3, .dilation = 3},
      {.h = 8, .w = 8, .in = 3, .out = 3, .kernel = 7, .padding = 3},
      {.h = 2, .w = 2, .in = 130, .out = 70},
  };
  return problems;
}

}  // namespace

TEST_CASE_TEMPLATE("conv2d matches its definition for odd shapes", T, float, double) {
  for (const st::Conv2dProblem& problem : odd_problems()) check_problem<T>(problem);
}

TEST_CASE("conv2d matches its definition where Winograd's algorithm computes it") {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 2, .h = 8, .w = 12, .in = 8, .out = 8},
        st::Conv2dProblem{.h = 11, .w = 13, .in = 8, .out = 17}, st::Conv2dProblem{.h = 4, .w = 4, .in = 65, .out = 9},
        st::Conv2dProblem{.h = 12, .w = 7, .in = 13, .out = 80, .padding = 0},
        st::Conv2dProblem{.n = 3, .h = 5, .w = 6, .in = 24, .out = 40, .padding = 2},
        st::Conv2dProblem{.h = 4, .w = 9, .in = 16, .out = 11, .padding = 4},
        st::Conv2dProblem{.n = 2, .h = 40, .w = 37, .in = 16, .out = 16},
        st::Conv2dProblem{.h = 21, .w = 20, .in = 72, .out = 136}})
    check_problem<float>(p);
}

TEST_CASE("conv2d matches its definition where there are too many weights for a cache, or few tiles") {
  for (const auto& [p, blocks] :
       {std::pair{st::Conv2dProblem{.n = 2, .h = 8, .w = 12, .in = 130, .out = 261}, 1},
        std::pair{st::Conv2dProblem{.h = 21, .w = 20, .in = 66, .out = 70}, 1},
        std::pair{st::Conv2dProblem{.h = 6, .w = 5, .in = 257, .out = 129, .padding = 2}, 1},
        std::pair{st::Conv2dProblem{.n = 7, .h = 13, .w = 12, .in = 132, .out = 254}, 2},
        std::pair{st::Conv2dProblem{.n = 3, .h = 33, .w = 36, .in = 129, .out = 255}, 5},
        std::pair{st::Conv2dProblem{.n = 2, .h = 18, .w = 17, .in = 128, .out = 256, .padding = 2, .dilation = 2},
                  1}}) {
    const auto plan = st::cpu::detail::winograd_plan<float>(p, false);
    CHECK(plan.deep);
    CHECK(plan.blocks >= blocks);
    CHECK(plan.transforms_in_place() == (plan.blocks <= 4));
    check_problem<float>(p);

    // Weights that are prepared before give the same bits, and so does an image among others.
    const auto x = normal<float>(p.input_size(), 1), weight = normal<float>(p.weight_size(), 2);
    std::vector<float> all(std::size_t(p.output_size())), again = all;
    st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), nullptr, all.data());
    st::cpu::PackedWeights cache;
    st::cpu::conv2d_forward_cached<float>(
        p, x.data(), cache, 7, [&] { return weight.data(); }, nullptr, again.data(), st::Activation::none);
    CHECK(all == again);
    st::Conv2dProblem one = p;
    one.n = 1;
    again.resize(std::size_t(one.output_size()));
    st::cpu::conv2d_forward<float>(one, x.data(), weight.data(), nullptr, again.data());
    CHECK(std::equal(again.begin(), again.end(), all.begin()));
    const int threads_before = st::num_threads();
    for (const int threads : {1, 3}) {
      st::set_num_threads(threads);
      st::cpu::conv2d_forward<float>(one, x.data(), weight.data(), nullptr, again.data());
      CHECK(std::equal(again.begin(), again.end(), all.begin()));
    }
    st::set_num_threads(threads_before);
  }
}

TEST_CASE("conv2d matches its definition where a kernel is cut into parts or takes every d-th pixel") {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 2, .h = 9, .w = 12, .in = 8, .out = 8, .kernel = 5, .padding = 2},
        st::Conv2dProblem{.h = 17, .w = 13, .in = 17, .out = 9, .kernel = 5, .padding = 0},
        st::Conv2dProblem{.h = 10, .w = 9, .in = 9, .out = 70, .kernel = 6, .padding = 5},
        st::Conv2dProblem{.n = 2, .h = 11, .w = 14, .in = 33, .out = 12, .kernel = 7, .padding = 3},
        st::Conv2dProblem{.h = 14, .w = 8, .in = 15, .out = 20, .kernel = 9, .padding = 4},
        st::Conv2dProblem{.h = 19, .w = 15, .in = 16, .out = 16, .kernel = 11, .padding = 3},
        // narrow: in one vector
        st::Conv2dProblem{.n = 2, .h = 21, .w = 18, .in = 1, .out = 17, .kernel = 9, .padding = 4},
        st::Conv2dProblem{.h = 19, .w = 22, .in = 3, .out = 32, .kernel = 11, .padding = 0},
        st::Conv2dProblem{.h = 13, .w = 17, .in = 8, .out = 9, .kernel = 5, .padding = 2},
        st::Conv2dProblem{.n = 2, .h = 17, .w = 16, .in = 16, .out = 24, .padding = 2, .dilation = 2},
        st::Conv2dProblem{.h = 23, .w = 31, .in = 11, .out = 17, .padding = 1, .dilation = 2},
        st::Conv2dProblem{.h = 25, .w = 29, .in = 20, .out = 9, .padding = 6, .dilation = 3},
        st::Conv2dProblem{.n = 2, .h = 33, .w = 34, .in = 24, .out = 66, .padding = 4, .dilation = 4},
        st::Conv2dProblem{.h = 21, .w = 18, .in = 9, .out = 10, .kernel = 5, .padding = 3, .dilation = 2}}) {
    CHECK(st::cpu::detail::use_winograd(p));
    check_problem<float>(p);
  }
}

TEST_CASE_TEMPLATE("conv2d matches its definition where pixels of any images make matrix products", T, float, double) {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 3, .h = 8, .w = 8, .in = 16, .out = 24, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 11, .h = 4, .w = 6, .in = 32, .out = 70, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 2, .h = 27, .w = 26, .in = 17, .out = 5, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 5, .h = 4, .w = 4, .in = 20, .out = 9, .kernel = 4, .padding = 0},  // one pixel each
        st::Conv2dProblem{.n = 2, .h = 15, .w = 13, .in = 21, .out = 33, .stride = 2},
        st::Conv2dProblem{.h = 12, .w = 9, .in = 19, .out = 18, .kernel = 1, .stride = 2, .padding = 0},
        // 1 x 1 with many weights
        st::Conv2dProblem{.n = 3, .h = 5, .w = 7, .in = 64, .out = 64, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 5, .h = 1, .w = 1, .in = 333, .out = 70, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.h = 7, .w = 7, .in = 17, .out = 301, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.h = 3, .w = 2, .in = 900, .out = 5, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 2, .h = 9, .w = 12, .in = 40, .out = 16, .kernel = 2, .stride = 2, .padding = 0},
        st::Conv2dProblem{.n = 2, .h = 17, .w = 11, .in = 16, .out = 65, .kernel = 5, .stride = 2, .padding = 2},
        st::Conv2dProblem{.h = 19, .w = 18, .in = 18, .out = 17, .kernel = 7, .stride = 2, .padding = 3},
        // some see padding alone
        st::Conv2dProblem{.h = 13, .w = 10, .in = 23, .out = 20, .kernel = 2, .stride = 3, .padding = 2},
        st::Conv2dProblem{.n = 2, .h = 3, .w = 2, .in = 16, .out = 16, .kernel = 5, .stride = 4, .padding = 2},
        st::Conv2dProblem{.h = 18, .w = 21, .in = 16, .out = 19, .stride = 2, .padding = 3, .dilation = 3},
        st::Conv2dProblem{.h = 14, .w = 14, .in = 17, .out = 16, .stride = 2, .padding = 2, .dilation = 2}})
    check_problem<T>(p);
}

TEST_CASE("conv2d matches its definition where Winograd's algorithm computes 4 x 4 with stride 2") {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 2, .h = 16, .w = 8, .in = 32, .out = 32, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 3, .h = 9, .w = 11, .in = 48, .out = 80, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.h = 10, .w = 7, .in = 32, .out = 144, .kernel = 4, .stride = 2, .padding = 0},
        st::Conv2dProblem{.n = 2, .h = 5, .w = 6, .in = 112, .out = 32, .kernel = 4, .stride = 2, .padding = 2},
        st::Conv2dProblem{.h = 7, .w = 8, .in = 32, .out = 64, .kernel = 4, .stride = 2, .padding = 3},
        // padding alone
        st::Conv2dProblem{.n = 3, .h = 1, .w = 2, .in = 32, .out = 32, .kernel = 4, .stride = 2, .padding = 5},
        st::Conv2dProblem{.n = 5, .h = 22, .w = 30, .in = 64, .out = 48, .kernel = 4, .stride = 2}}) {
    CHECK(st::cpu::detail::use_strided_winograd(p));
    check_problem<float>(p);
  }
}

TEST_CASE("conv2d matches its definition where products are cut into chunks, groups and ranges") {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 3, .h = 8, .w = 8, .in = 150, .out = 40, .kernel = 4, .stride = 2},   // 2400 rows
        st::Conv2dProblem{.n = 2, .h = 4, .w = 4, .in = 1100, .out = 20, .kernel = 2, .stride = 2, .padding = 0},
        st::Conv2dProblem{.n = 2, .h = 6, .w = 6, .in = 16, .out = 300, .stride = 2},                // five panels
        st::Conv2dProblem{.n = 3, .h = 20, .w = 11, .in = 700, .out = 90, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 7, .h = 30, .w = 31, .in = 16, .out = 16, .kernel = 4, .stride = 2},  // ranges of pixels
        st::Conv2dProblem{.n = 70, .h = 4, .w = 4, .in = 33, .out = 130, .kernel = 4, .stride = 2}})
    check_problem<float>(p);
}

TEST_CASE("prepared weights of direct convolutions give the same bits, also where one cache serves several forms") {
  const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
    return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  };
  st::cpu::PackedWeights cache, transposed[2];
  int packed[2] = {0, 0};
  const auto weight = normal<float>(24 * 9 * 32, 2), bias = normal<float>(32, 3);
  for (const std::int64_t size : {3, 16, 2, 16, 2}) {  // direct where images are small, Winograd's where they are not
    const st::Conv2dProblem p{.n = 2, .h = size, .w = size, .in = 32, .out = 24};
    CHECK(st::cpu::detail::use_winograd(p) == (size != 2));
    const auto x = normal<float>(p.input_size(), 1);
    std::vector<float> once(std::size_t(p.output_size())), kept = once;
    st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), bias.data(), once.data(), st::Activation::relu);
    st::cpu::conv2d_forward_cached<float>(
        p, x.data(), cache, 7, [&] { return weight.data(); }, bias.data(), kept.data(), st::Activation::relu);
    CHECK(same(once, kept));
  }
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 3, .in = 200, .out = 150, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.h = 9, .w = 7, .in = 96, .out = 70, .kernel = 1, .padding = 0}}) {
    CHECK(st::cpu::conv2d_packed_bytes(p) > 0);
    const auto x = normal<float>(p.input_size(), 1), w = normal<float>(p.weight_size(), 2), b = normal<float>(p.out, 3);
    std::vector<float> once(std::size_t(p.output_size())), kept = once;
    st::cpu::conv2d_forward<float>(p, x.data(), w.data(), b.data(), once.data());
    st::cpu::PackedWeights own;
    int made = 0;
    for (int call = 0; call < 3; ++call) {
      st::cpu::conv2d_forward_cached<float>(
          p, x.data(), own, 7, [&] { return ++made, w.data(); }, b.data(), kept.data(), st::Activation::none);
      CHECK(same(once, kept));
    }
    CHECK(made == 1);
  }
  const auto transposed_weight = normal<float>(48 * 16 * 32, 4);
  for (const std::int64_t size : {8, 1, 5, 8, -8, -3}) {  // negative: Winograd's
    st::Conv2dProblem p{.n = 2, .h = size, .w = size, .in = 32, .out = 24, .stride = 2};
    if (size < 0) p.h = p.w = -size, p.out = 48, p.kernel = 4;
    CHECK(st::cpu::detail::use_strided_winograd(p) == (size < 0));
    const auto x = normal<float>(std::max(p.input_size(), p.output_size()), 1);
    const auto forward_bias = normal<float>(p.out, 5);
    st::cpu::PackedWeights forward;
    std::vector<float> y(std::size_t(p.output_size())), z = y;
    st::cpu::conv2d_forward<float>(p, x.data(), transposed_weight.data(), forward_bias.data(), y.data());
    for (int call = 0; call < 2; ++call) {
      st::cpu::conv2d_forward_cached<float>(
          p, x.data(), forward, 7, [&] { return transposed_weight.data(); }, forward_bias.data(), z.data(),
          st::Activation::none);
      CHECK(same(y, z));
    }
    std::vector<float> once(std::size_t(p.input_size())), kept = once, without = once;
    const std::size_t which = size < 0;
    const float* const w = transposed_weight.data();
    st::cpu::conv2d_backward_input<float>(p, x.data(), w, once.data(), false, {}, bias.data());
    st::cpu::conv2d_transposed_cached<float>(
        p, x.data(), transposed[which], 7, [&] { return ++packed[which], w; }, bias.data(), kept.data());
    CHECK(same(once, kept));
    CHECK(packed[which] == 1);
    st::cpu::conv2d_backward_input<float>(p, x.data(), w, without.data(), false);
    double largest = 0;
    for (std::size_t i = 0; i < once.size(); ++i)
      strata_test::keep_largest(largest, std::abs(double(once[i] - without[i] - bias[i % 32])));
    CHECK(largest < 1e-4f);
  }
}

TEST_CASE_TEMPLATE("conv2d matches its definition for random problems", T, float, double) {
  st::Rng rng(11);
  const auto between = [&](int low, int high) { return low + int(rng.below(std::uint32_t(high - low + 1))); };
  for (int trial = 0; trial < 40; ++trial) {
    st::Conv2dProblem p{.n = between(1, 3),
                        .h = between(1, 12),
                        .w = between(1, 12),
                        .in = between(1, 20),
                        .out = between(1, 20),
                        .kernel = between(1, 5),
                        .stride = between(1, 3),
                        .padding = between(0, 4),
                        .dilation = between(1, 3)};
    const std::int64_t reach = p.dilation * (p.kernel - 1) + 1;
    if (reach <= std::min(p.h, p.w) + 2 * p.padding) check_problem<T>(p);
  }
}

TEST_CASE_TEMPLATE("conv2d matches its definition for every number of rows and vectors that a block of sums may have",
                   T, float, double) {
  constexpr int lanes = int(st::simd::lanes<st::simd::Vector<T>>);
  for (int vectors = 1; vectors <= 4; ++vectors) {
    for (int rows = 1; rows <= 24; ++rows)
      check_problem<T>({.n = 2, .h = 9, .w = 12, .in = rows, .out = vectors * lanes, .kernel = 1, .padding = 0});
    for (const int out : {1, 2, 3})  // where the rows are those of the result: 25, 50 and 75
      check_problem<T>({.n = 2, .h = 9, .w = 12, .in = vectors * lanes, .out = out, .kernel = 5, .padding = 2});
    check_problem<T>({.n = 2, .h = 9, .w = 12, .in = 1, .out = vectors * lanes, .kernel = 5, .padding = 2});
  }
}

TEST_CASE("direct convolution matches its definition where images are cut into tiles") {
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 2, .h = 37, .w = 130, .in = 1, .out = 20},
        st::Conv2dProblem{.h = 40, .w = 101, .in = 3, .out = 48, .kernel = 5, .padding = 2},
        st::Conv2dProblem{.h = 33, .w = 50, .in = 20, .out = 1, .kernel = 5, .padding = 2},
        st::Conv2dProblem{.h = 30, .w = 61, .in = 33, .out = 3},
        st::Conv2dProblem{.n = 2, .h = 15, .w = 21, .in = 70, .out = 40, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.h = 41, .w = 67, .in = 6, .out = 9, .stride = 2},
        st::Conv2dProblem{.h = 30, .w = 29, .in = 5, .out = 17, .padding = 8, .dilation = 8},
        st::Conv2dProblem{.h = 5, .w = 4, .in = 6, .out = 17, .kernel = 9, .padding = 4},
        st::Conv2dProblem{.h = 23, .w = 24, .in = 40, .out = 12, .kernel = 5, .padding = 2}})
    check_problem<float>(p);
}

TEST_CASE("a pixel of a direct convolution has the same bits in any image and at any place") {
  for (const auto& [in, out, kernel] : {std::array{1, 64, 3},
                                        {3, 20, 3},
                                        {5, 40, 5},
                                        {40, 1, 3},
                                        {33, 3, 5},
                                        {20, 24, 1},
                                        {80, 72, 1},
                                        {20, 24, 3},
                                        {70, 72, 5}}) {
    CAPTURE(in);
    CAPTURE(out);
    const int padding = kernel / 2;
    const st::Conv2dProblem whole{
        .n = 2, .h = 44, .w = 150, .in = in, .out = out, .kernel = kernel, .padding = padding};
    const st::Conv2dProblem part{.h = 19, .w = 23, .in = in, .out = out, .kernel = kernel, .padding = padding};
    const std::int64_t top = 17, left = 71;
    const auto x = normal<float>(whole.input_size(), 1), weight = normal<float>(whole.weight_size(), 2);
    const auto bias = normal<float>(out, 3);
    std::vector<float> crop, y(std::size_t(whole.output_size())), z(std::size_t(part.output_size()));
    const auto pixel = [&](std::int64_t h, std::int64_t w) { return std::ptrdiff_t((whole.h + h) * whole.w + w); };
    for (std::int64_t h = 0; h < part.h; ++h)  // of the second image
      crop.insert(crop.end(), x.begin() + pixel(top + h, left) * in, x.begin() + pixel(top + h, left + part.w) * in);
    st::cpu::direct_forward<float>(whole, x.data(), weight.data(), y.data(), {.bias = bias.data()});
    st::cpu::direct_forward<float>(part, crop.data(), weight.data(), z.data(), {.bias = bias.data()});
    bool same = true;
    for (std::int64_t h = padding; h < part.h - padding; ++h)
      for (std::int64_t w = padding; w < part.w - padding; ++w)
        same &= std::memcmp(y.data() + pixel(top + h, left + w) * out, z.data() + (h * part.w + w) * out,
                            std::size_t(out) * sizeof(float)) == 0;
    CHECK(same);
  }
}

TEST_CASE("a pixel of a strided or transposed convolution has the same bits in any batch and at any place") {
  for (const auto& [in, out, kernel, stride] : {std::array{20, 24, 4, 2},
                                                {16, 70, 3, 2},
                                                {40, 17, 2, 2},
                                                {33, 20, 5, 3},
                                                {32, 48, 4, 2},
                                                {3, 40, 7, 2},
                                                {40, 3, 4, 2}}) {
    CAPTURE(in);
    CAPTURE(kernel);
    const int padding = (kernel - stride + 1) / 2;
    const st::Conv2dProblem whole{
        .n = 3, .h = 30, .w = 60, .in = in, .out = out, .kernel = kernel, .stride = stride, .padding = padding};
    st::Conv2dProblem part = whole;
    part.n = 1, part.h = 18, part.w = 24;
    // of the last image; Winograd's tiles begin at multiples of four
    const std::int64_t top = 12, left = 36, steps = 3;
    const auto weight = normal<float>(whole.weight_size(), 2), bias = normal<float>(std::max(in, out), 3);
    // Crops what lies `f` as dense as the large image, computes both, and compares but for `margin` pixels.
    const auto check = [&](std::int64_t from_step, std::int64_t to_step, int from_c, int to_c, std::int64_t from_h,
                           std::int64_t from_w, std::int64_t part_from_h, std::int64_t part_from_w, std::int64_t to_h,
                           std::int64_t to_w, std::int64_t part_to_h, std::int64_t part_to_w, auto compute) {
      const auto x = normal<float>(whole.n * from_h * from_w * from_c, 1);
      std::vector<float> crop, y(std::size_t(whole.n * to_h * to_w * to_c)),
          z(std::size_t(part_to_h * part_to_w * to_c));
      for (std::int64_t h = 0; h < part_from_h; ++h) {
        const auto row =
            x.begin() + std::ptrdiff_t(((2 * from_h + top / from_step + h) * from_w + left / from_step) * from_c);
        crop.insert(crop.end(), row, row + std::ptrdiff_t(part_from_w * from_c));
      }
      compute(whole, x.data(), y.data());
      compute(part, crop.data(), z.data());
      bool same = true;
      const std::int64_t margin = steps * stride / to_step;
      for (std::int64_t h = margin; h < part_to_h - margin; ++h)
        for (std::int64_t w = margin; w < part_to_w - margin; ++w)
          same &= std::memcmp(y.data() + ((2 * to_h + top / to_step + h) * to_w + left / to_step + w) * to_c,
                              z.data() + (h * part_to_w + w) * to_c, std::size_t(to_c) * sizeof(float)) == 0;
      CHECK(same);
    };
    check(1, stride, in, out, whole.h, whole.w, part.h, part.w, whole.out_h(), whole.out_w(), part.out_h(),
          part.out_w(), [&](const st::Conv2dProblem& p, const float* x, float* y) {
            st::cpu::conv2d_forward<float>(p, x, weight.data(), bias.data(), y);
          });
    check(stride, 1, out, in, whole.out_h(), whole.out_w(), part.out_h(), part.out_w(), whole.h, whole.w, part.h,
          part.w, [&](const st::Conv2dProblem& p, const float* x, float* y) {
            st::cpu::conv2d_backward_input<float>(p, x, weight.data(), y, false, {}, bias.data());
          });
  }
}

TEST_CASE("a thin convolution gives the same bits past the caches and into them") {
  for (const st::Conv2dProblem& p : {st::Conv2dProblem{.n = 2, .h = 217, .w = 240, .in = 1, .out = 64},
                                     st::Conv2dProblem{.h = 340, .w = 333, .in = 3, .out = 64}}) {
    REQUIRE(p.output_size() * 4 >= st::cpu::detail::streamed_bytes);
    const auto x = normal<float>(p.input_size(), 1), weight = normal<float>(p.weight_size(), 2),
               bias = normal<float>(p.out, 3);
    const auto size = std::size_t(p.output_size());
    st::Scratch<float> memory(size + 1);  // whole vectors begin at its start, and not an element later
    std::vector<float> results[2];
    for (std::size_t late : {0, 1}) {
      float* const y = memory.data() + late;
      std::fill_n(y, size, std::numeric_limits<float>::quiet_NaN());
      st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), bias.data(), y, st::Activation::relu);
      results[late].assign(y, y + size);
    }
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE("conv2d gives the same bits for any number of threads") {
  const int threads_before = st::num_threads();
  for (const st::Conv2dProblem& p :
       {st::Conv2dProblem{.n = 2, .h = 30, .w = 23, .in = 16, .out = 24},
        st::Conv2dProblem{.n = 2, .h = 25, .w = 23, .in = 5, .out = 7, .kernel = 5, .stride = 2},
        st::Conv2dProblem{.n = 3, .h = 17, .w = 40, .in = 1, .out = 64},
        st::Conv2dProblem{.n = 3, .h = 17, .w = 40, .in = 64, .out = 1},
        st::Conv2dProblem{.n = 2, .h = 40, .w = 50, .in = 20, .out = 33, .kernel = 5, .padding = 2},
        st::Conv2dProblem{.n = 2, .h = 41, .w = 50, .in = 20, .out = 33, .padding = 3, .dilation = 3},
        st::Conv2dProblem{.n = 2, .h = 40, .w = 50, .in = 70, .out = 30, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 2, .h = 40, .w = 50, .in = 70, .out = 130, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 3, .h = 1, .w = 1, .in = 700, .out = 330, .kernel = 1, .padding = 0},
        st::Conv2dProblem{.n = 9, .h = 16, .w = 17, .in = 32, .out = 48, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 3, .h = 8, .w = 8, .in = 80, .out = 100, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 3, .h = 23, .w = 17, .in = 32, .out = 24, .kernel = 4, .stride = 2},
        st::Conv2dProblem{.n = 3, .h = 17, .w = 19, .in = 24, .out = 30, .stride = 3}}) {
    CAPTURE(describe(p));
    const auto x = normal<float>(p.input_size(), 1), weight = normal<float>(p.weight_size(), 2);
    const auto dy = normal<float>(p.output_size(), 4), bias = normal<float>(p.out, 3);
    std::vector<float> results[3];
    for (int threads = 1; threads <= 3; ++threads) {
      st::set_num_threads(threads);
      std::vector<float>& all = results[threads - 1];
      all.resize(std::size_t(p.output_size() + p.input_size() + p.weight_size() + p.out));
      float* y = all.data();
      float* dx = y + p.output_size();
      float* dweight = dx + p.input_size();
      st::cpu::conv2d_forward(p, x.data(), weight.data(), bias.data(), y);
      st::cpu::conv2d_backward_input(p, dy.data(), weight.data(), dx, false);
      st::cpu::conv2d_backward_weight(p, x.data(), dy.data(), dweight, dweight + p.weight_size(), false);
    }
    for (int i = 1; i < 3; ++i)
      CHECK(std::memcmp(results[0].data(), results[i].data(), results[0].size() * sizeof(float)) == 0);
  }
  st::set_num_threads(threads_before);
}

TEST_CASE("a fused ReLU keeps a NaN") {
  const st::Conv2dProblem p{.h = 8, .w = 8, .in = 8, .out = 8};
  auto x = normal<float>(p.input_size(), 1);
  const auto weight = normal<float>(p.weight_size(), 2);
  x[(4 * 8 + 4) * 8] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> y(std::size_t(p.output_size()));
  st::cpu::conv2d_forward<float>(p, x.data(), weight.data(), nullptr, y.data(), st::Activation::relu);
  CHECK(std::isnan(y[(4 * 8 + 4) * 8]));
}

TEST_CASE("conv2d refuses extents that make no convolution") {
  float number = 0;
  const auto forward = [&](const st::Conv2dProblem& p) {
    st::cpu::conv2d_forward<float>(p, &number, &number, nullptr, &number);
  };
  CHECK_THROWS_WITH_AS(
      forward({.h = 2, .w = 8, .kernel = 5}),
      "conv2d: a kernel that reaches over 5 pixels (kernel 5, dilation 1) does not fit an image of 2x8 "
      "with padding 1",
      st::ShapeError);
  CHECK_THROWS_AS(forward({.n = 0}), st::ShapeError);
  CHECK_THROWS_AS(forward({.stride = 0}), st::ShapeError);
}
