// Depthwise convolution against its definition in double, over odd shapes, and the same bits for any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "cpu/numbers.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/depthwise_conv2d.hpp"

namespace {

namespace st = strata;
using Problem = st::DepthwiseConv2dProblem;

/// All that a convolution computes.
template <class T>
struct Results {
  std::vector<T> y, rectified, dx, dweight, dbias;
  bool operator==(const Results&) const = default;
};
template <class T>
struct Inputs {
  explicit Inputs(const Problem& p)
      : x(normal<T>(p.input_size(), 1)), weight(normal<T>(p.weight_size(), 2)), bias(normal<T>(p.channels, 3)),
        dy(normal<T>(p.output_size(), 4)) {}
  std::vector<T> x, weight, bias, dy;
};

template <class T>
Results<T> computed(const Problem& p, const Inputs<T>& in) {
  Results<T> r{unwritten<T>(p.output_size()), unwritten<T>(p.output_size()), unwritten<T>(p.input_size()),
               unwritten<T>(p.weight_size()), unwritten<T>(p.channels)};
  st::cpu::depthwise_conv2d_forward(p, in.x.data(), in.weight.data(), in.bias.data(), r.y.data(), st::Activation::none);
  st::cpu::depthwise_conv2d_forward(p, in.x.data(), in.weight.data(), in.bias.data(), r.rectified.data(), st::Activation::relu);
  st::cpu::depthwise_conv2d_backward_input(p, in.dy.data(), in.weight.data(), r.dx.data(), false);
  st::cpu::depthwise_conv2d_backward_weight(p, in.x.data(), in.dy.data(), r.dweight.data(), r.dbias.data(), false);
  return r;
}

/// A sum in double, and the sum of its terms' magnitudes, which its rounding errors are a part of.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};
struct Wanted {
  std::vector<Sum> y, dx, dweight, dbias;
};

template <class T>
Wanted by_definition(const Problem& p, const Inputs<T>& in) {
  Wanted r;
  r.y.resize(std::size_t(p.output_size()));
  r.dx.resize(std::size_t(p.input_size()));
  r.dweight.resize(std::size_t(p.weight_size()));
  r.dbias.resize(std::size_t(p.channels));
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        for (std::int64_t c = 0; c < p.channels; ++c) {
          const auto to = std::size_t(((n * p.out_h() + i) * p.out_w() + j) * p.channels + c);
          r.y[to].add(double(in.bias[std::size_t(c)]));
          r.dbias[std::size_t(c)].add(double(in.dy[to]));
          for (std::int64_t q = 0; q < p.kernel; ++q)
            for (std::int64_t s = 0; s < p.kernel; ++s) {
              const std::int64_t row = i * p.stride + q * p.dilation - p.padding, column = j * p.stride + s * p.dilation - p.padding;
              if (row < 0 || row >= p.h || column < 0 || column >= p.w) continue;
              const auto at = std::size_t(((n * p.h + row) * p.w + column) * p.channels + c);
              const auto tap = std::size_t((c * p.kernel + q) * p.kernel + s);
              r.y[to].add(double(in.x[at]) * double(in.weight[tap]));
              r.dx[at].add(double(in.dy[to]) * double(in.weight[tap]));
              r.dweight[tap].add(double(in.dy[to]) * double(in.x[at]));
            }
        }
  return r;
}

/// Whether all numbers are right but for rounding; NaN is not. `before` is what was there.
template <class T>
bool close(const std::vector<T>& got, const std::vector<Sum>& wanted, double before = 0) {
  const double unit = 8 * double(std::numeric_limits<T>::epsilon());  // sums are of vectors, rows and tasks: few roundings each
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(double(got[i]) - before - wanted[i].value) <= unit * (wanted[i].magnitude + before))) return false;
  return true;
}

template <class T>
bool right(const Problem& p) {
  const Inputs<T> in(p);
  const Wanted wanted = by_definition(p, in);
  Results<T> got = computed(p, in);
  bool good = close(got.y, wanted.y) && close(got.dx, wanted.dx) && close(got.dweight, wanted.dweight) && close(got.dbias, wanted.dbias);
  for (std::size_t i = 0; i < got.y.size(); ++i) good = good && got.rectified[i] == std::max(got.y[i], T(0));

  // Added to what is there, without a bias.
  std::vector<T> dx(got.dx.size(), T(1)), dweight(got.dweight.size(), T(1)), dbias(got.dbias.size(), T(1));
  st::cpu::depthwise_conv2d_backward_input(p, in.dy.data(), in.weight.data(), dx.data(), true);
  st::cpu::depthwise_conv2d_backward_weight(p, in.x.data(), in.dy.data(), dweight.data(), dbias.data(), true);
  good = good && close(dx, wanted.dx, 1) && close(dweight, wanted.dweight, 1) && close(dbias, wanted.dbias, 1);
  std::vector<T> alone = unwritten<T>(p.weight_size()), y = unwritten<T>(p.output_size());
  st::cpu::depthwise_conv2d_backward_weight<T>(p, in.x.data(), in.dy.data(), alone.data(), nullptr, false);
  st::cpu::depthwise_conv2d_forward<T>(p, in.x.data(), in.weight.data(), nullptr, y.data(), st::Activation::none);
  good = good && alone == got.dweight;
  for (std::size_t i = 0; i < y.size(); ++i)
    good = good && std::abs(double(y[i]) + double(in.bias[i % in.bias.size()]) - wanted.y[i].value) <=
                       8 * double(std::numeric_limits<T>::epsilon()) * wanted.y[i].magnitude;
  return good;
}

}  // namespace

TEST_CASE_TEMPLATE("depthwise convolution and its gradients match their definition", T, float, double) {
  int problems = 0;
  for (const int channels : {1, 3, 17, 24})
    for (const int kernel : {1, 2, 3, 4, 5, 7, 9})
      for (const int stride : {1, 2, 3})
        for (const int dilation : {1, 2, 3})
          for (const int padding : {0, 1, dilation * (kernel - 1) / 2, dilation * (kernel - 1) + 2})
            for (const std::pair<int, int>& size : {std::pair{1, 1}, {5, 9}, {12, 23}}) {
              const int h = size.first, w = size.second;
              const Problem p{.n = 2, .h = h, .w = w, .channels = channels, .kernel = kernel, .stride = stride, .padding = padding,
                              .dilation = dilation};
              const int reach = dilation * (kernel - 1) + 1;
              if (std::min(h, w) + 2 * padding < reach) continue;
              INFO("channels ", channels, ", kernel ", kernel, ", stride ", stride, ", dilation ", dilation, ", padding ", padding,
                   ", ", h, " x ", w);
              CHECK(right<T>(p));
              ++problems;
            }
  CHECK(problems > 1500);
}

TEST_CASE_TEMPLATE("depthwise convolution of images that are cut into strips and bands", T, float, double) {
  for (const int kernel : {3, 5, 7, 9})
    for (const int stride : {1, 2}) {
      CAPTURE(kernel);
      CAPTURE(stride);
      CHECK(right<T>({.n = 3, .h = 37, .w = 61, .channels = 64, .kernel = kernel, .stride = stride, .padding = kernel / 2}));
    }
  CHECK(right<T>({.n = 1, .h = 9, .w = 300, .channels = 129}));
  CHECK(right<T>({.n = 1, .h = 18, .w = 130, .channels = 160, .kernel = 5, .stride = 2, .padding = 2}));
  CHECK(right<T>({.n = 20, .h = 6, .w = 5, .channels = 9}));
}

TEST_CASE_TEMPLATE("a depthwise convolution has the same bits for any number of threads", T, float, double) {
  const int before = st::num_threads();
  for (const int kernel : {3, 7, 9})
    for (const int stride : {1, 2}) {
      const Problem p{.n = 2, .h = 45, .w = 51, .channels = 19, .kernel = kernel, .stride = stride, .padding = kernel / 2};
      const Inputs<T> in(p);
      std::vector<Results<T>> results;
      for (const int threads : {1, 2, 3}) {
        st::set_num_threads(threads);
        results.push_back(computed(p, in));
      }
      CHECK(results[0] == results[1]);
      CHECK(results[0] == results[2]);
    }
  st::set_num_threads(before);
}

TEST_CASE("a depthwise convolution keeps NaN, rectified or not, to its window") {
  const Problem p{.n = 1, .h = 9, .w = 20, .channels = 11};
  Inputs<float> in(p);
  in.x[std::size_t((4 * p.w + 10) * p.channels + 7)] = std::numeric_limits<float>::quiet_NaN();
  const Results<float> got = computed(p, in);
  for (const auto* y : {&got.y, &got.rectified})
    CHECK(std::count_if(y->begin(), y->end(), [](float value) { return std::isnan(value); }) == 9);
}

TEST_CASE("a depthwise convolution of impossible extents is refused") {
  const std::vector<float> numbers(64, 1.0f);
  std::vector<float> y(64);
  const auto run = [&](const Problem& p) {
    st::cpu::depthwise_conv2d_forward<float>(p, numbers.data(), numbers.data(), nullptr, y.data(), st::Activation::none);
  };
  CHECK_THROWS_WITH_AS(run({.h = 2, .w = 4, .padding = 0}), doctest::Contains("does not fit an image of 2x4"), st::ShapeError);
  CHECK_THROWS_AS(run({.h = 0, .w = 4}), st::ShapeError);
  CHECK_THROWS_AS(run({.h = 4, .w = 4, .stride = 0}), st::ShapeError);
}
