// Convolution with groups and with padding made of the image against its definition in double, over odd shapes, and the
// same bits for any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/numbers.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/compiled_kernels.hpp"
#include "strata/cpu/conv2d_general.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace {

namespace st = strata;
using Problem = st::Conv2dProblem;
using st::PaddingMode;

/// All that a convolution computes.
template <class T>
struct Results {
  std::vector<T> y, rectified, dx, dweight, dbias;
  bool operator==(const Results&) const = default;
};
template <class T>
struct Inputs {
  explicit Inputs(const Problem& p)
      : x(normal<T>(p.input_size(), 1)), weight(normal<T>(p.weight_size(), 2)), bias(normal<T>(p.out, 3)),
        dy(normal<T>(p.output_size(), 4)) {}
  std::vector<T> x, weight, bias, dy;
};

/// The functions of one form of groups, chosen at run time.
template <class T>
struct Kernels {
  explicit Kernels(const Problem& p) : Kernels(st::cpu::group_form<T>(p.in, p.out, p.groups)) {}
  void (*forward)(const Problem&, const T*, const T*, const T*, T*, st::Activation);
  void (*backward_input)(const Problem&, const T*, const T*, T*, bool);
  void (*backward_weight)(const Problem&, const T*, const T*, T*, T*, bool);

 private:
  explicit Kernels(int form) {
    if (form == st::cpu::multiplied_groups) choose<st::cpu::multiplied_groups>();
    if (form == st::cpu::groups_apart) choose<st::cpu::groups_apart>();
    if (form == 1) choose<1>();
    if constexpr (std::is_same_v<T, float>) {
      if (form == 2) choose<2>();
      if (form == 4) choose<4>();
      if (form == 8) choose<8>();
    }
  }
  template <int Form>
  void choose() {
    forward = st::cpu::general_forward<Form, T>;
    backward_input = st::cpu::general_backward_input<Form, T>;
    backward_weight = st::cpu::general_backward_weight<Form, T>;
  }
};

template <class T>
Results<T> computed(const Problem& p, const Inputs<T>& in) {
  Results<T> r{unwritten<T>(p.output_size()), unwritten<T>(p.output_size()), unwritten<T>(p.input_size()),
               unwritten<T>(p.weight_size()), unwritten<T>(p.out)};
  const Kernels<T> run(p);
  run.forward(p, in.x.data(), in.weight.data(), in.bias.data(), r.y.data(), st::Activation::none);
  run.forward(p, in.x.data(), in.weight.data(), in.bias.data(), r.rectified.data(), st::Activation::relu);
  run.backward_input(p, in.dy.data(), in.weight.data(), r.dx.data(), false);
  run.backward_weight(p, in.x.data(), in.dy.data(), r.dweight.data(), r.dbias.data(), false);
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

/// Where a place beyond the border comes from, one step at a time; -1: nowhere.
std::int64_t source_of(const Problem& p, std::int64_t at, std::int64_t size) {
  if (at >= 0 && at < size) return at;
  switch (p.padding_mode) {
    case PaddingMode::reflect: return source_of(p, at < 0 ? -at : size - 2 - (at - size), size);
    case PaddingMode::replicate: return at < 0 ? 0 : size - 1;
    case PaddingMode::circular: return (at + size) % size;
    default: return -1;
  }
}

template <class T>
Wanted by_definition(const Problem& p, const Inputs<T>& in) {
  Wanted r;
  r.y.resize(std::size_t(p.output_size()));
  r.dx.resize(std::size_t(p.input_size()));
  r.dweight.resize(std::size_t(p.weight_size()));
  r.dbias.resize(std::size_t(p.out));
  const std::int64_t wide = p.kernel_columns();
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        for (std::int64_t o = 0; o < p.out; ++o) {
          const auto to = std::size_t(((n * p.out_h() + i) * p.out_w() + j) * p.out + o);
          r.y[to].add(double(in.bias[std::size_t(o)]));
          r.dbias[std::size_t(o)].add(double(in.dy[to]));
          for (std::int64_t q = 0; q < p.kernel; ++q)
            for (std::int64_t s = 0; s < wide; ++s) {
              const std::int64_t row = source_of(p, i * p.stride + q * p.dilation - p.padding, p.h);
              const std::int64_t column = source_of(p, j * p.stride + s * p.dilation - p.padding_columns(), p.w);
              if (row < 0 || column < 0) continue;
              for (std::int64_t k = 0; k < p.group_in(); ++k) {
                const std::int64_t c = o / p.group_out() * p.group_in() + k;
                const auto at = std::size_t(((n * p.h + row) * p.w + column) * p.in + c);
                const auto tap = std::size_t(((o * p.kernel + q) * wide + s) * p.group_in() + k);
                r.y[to].add(double(in.x[at]) * double(in.weight[tap]));
                r.dx[at].add(double(in.dy[to]) * double(in.weight[tap]));
                r.dweight[tap].add(double(in.dy[to]) * double(in.x[at]));
              }
            }
        }
  return r;
}

/// Whether all numbers are right but for rounding; NaN is not. `before` is what was there.
template <class T>
bool close(const std::vector<T>& got, const std::vector<Sum>& wanted, double before = 0) {
  // sums are of vectors, rows and tasks: few roundings each
  const double unit = 8 * double(std::numeric_limits<T>::epsilon());
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(double(got[i]) - before - wanted[i].value) <= unit * (wanted[i].magnitude + before))) return false;
  return true;
}

template <class T>
bool right(const Problem& p) {
  const Inputs<T> in(p);
  Wanted wanted = by_definition(p, in);
  // Winograd's rounding is of all that its tiles read, and about ten times as large.
  Problem one = p.padding_mode == PaddingMode::zeros ? p : st::cpu::padded_problem(p);
  one.in = p.group_in(), one.out = p.group_out(), one.groups = 1;
  if (std::is_same_v<T, float> && st::cpu::group_form<T>(p.in, p.out, p.groups) == st::cpu::groups_apart &&
      st::cpu::detail::use_winograd(one))
    for (auto* sums : {&wanted.y, &wanted.dx, &wanted.dweight}) {
      double largest = 0;
      for (const Sum& sum : *sums) largest = std::max(largest, sum.magnitude);
      for (Sum& sum : *sums) sum.magnitude = largest;
    }
  Results<T> got = computed(p, in);
  bool good = close(got.y, wanted.y) && close(got.dx, wanted.dx) && close(got.dweight, wanted.dweight) &&
              close(got.dbias, wanted.dbias);
  for (std::size_t i = 0; i < got.y.size(); ++i) good = good && got.rectified[i] == std::max(got.y[i], T(0));

  // Added to what is there, without a bias.
  std::vector<T> dx(got.dx.size(), T(1)), dweight(got.dweight.size(), T(1)), dbias(got.dbias.size(), T(1));
  const Kernels<T> run(p);
  run.backward_input(p, in.dy.data(), in.weight.data(), dx.data(), true);
  run.backward_weight(p, in.x.data(), in.dy.data(), dweight.data(), dbias.data(), true);
  good = good && close(dx, wanted.dx, 1) && close(dweight, wanted.dweight, 1) && close(dbias, wanted.dbias, 1);
  std::vector<T> alone = unwritten<T>(p.weight_size()), y = unwritten<T>(p.output_size());
  run.backward_weight(p, in.x.data(), in.dy.data(), alone.data(), nullptr, false);
  run.forward(p, in.x.data(), in.weight.data(), nullptr, y.data(), st::Activation::none);
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
              const Problem p{.n = 2,
                              .h = h,
                              .w = w,
                              .in = channels,
                              .out = channels,
                              .kernel = kernel,
                              .stride = stride,
                              .padding = padding,
                              .dilation = dilation,
                              .groups = channels};
              const int reach = dilation * (kernel - 1) + 1;
              if (std::min(h, w) + 2 * padding < reach) continue;
              INFO("channels ", channels, ", kernel ", kernel, ", stride ", stride, ", dilation ", dilation,
                   ", padding ", padding, ", ", h, " x ", w);
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
      CHECK(right<T>({.n = 3,
                      .h = 37,
                      .w = 61,
                      .in = 64,
                      .out = 64,
                      .kernel = kernel,
                      .stride = stride,
                      .padding = kernel / 2,
                      .groups = 64}));
    }
  CHECK(right<T>({.n = 1, .h = 9, .w = 300, .in = 129, .out = 129, .groups = 129}));
  CHECK(right<T>(
      {.n = 1, .h = 18, .w = 130, .in = 160, .out = 160, .kernel = 5, .stride = 2, .padding = 2, .groups = 160}));
  CHECK(right<T>({.n = 20, .h = 6, .w = 5, .in = 9, .out = 9, .groups = 9}));
}

TEST_CASE_TEMPLATE("a depthwise convolution has the same bits for any number of threads", T, float, double) {
  const int before = st::num_threads();
  for (const int kernel : {3, 7, 9})
    for (const int stride : {1, 2}) {
      const Problem p{.n = 2,
                      .h = 45,
                      .w = 51,
                      .in = 19,
                      .out = 19,
                      .kernel = kernel,
                      .stride = stride,
                      .padding = kernel / 2,
                      .groups = 19};
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
  const Problem p{.n = 1, .h = 9, .w = 20, .in = 11, .out = 11, .groups = 11};
  Inputs<float> in(p);
  in.x[std::size_t((4 * p.w + 10) * p.in + 7)] = std::numeric_limits<float>::quiet_NaN();
  const Results<float> got = computed(p, in);
  for (const auto* y : {&got.y, &got.rectified})
    CHECK(std::count_if(y->begin(), y->end(), [](float value) { return std::isnan(value); }) == 9);
}

TEST_CASE_TEMPLATE("convolutions with groups match their definition", T, float, double) {
  // Groups of 1, 2, 4 and 8 channels, of which vectors hold several, multipliers, and groups by themselves.
  struct Channels {
    int in, out, groups;
  };
  for (const Channels& c : {Channels{12, 12, 6},
                            {40, 40, 20},
                            {8, 8, 2},
                            {20, 20, 5},
                            {72, 72, 18},
                            {24, 24, 3},
                            {40, 40, 5},
                            {5, 15, 5},
                            {3, 6, 3},
                            {6, 9, 3},
                            {9, 6, 3},
                            {2, 2, 2},
                            {32, 64, 2},
                            {48, 16, 2},
                            {20, 4, 4}})
    for (const int kernel : {1, 3, 4})
      for (const int stride : {1, 2})
        for (const std::pair<int, int>& size : {std::pair{1, 1}, {6, 7}, {9, 21}}) {
          const Problem p{.n = 2,
                          .h = size.first,
                          .w = size.second,
                          .in = c.in,
                          .out = c.out,
                          .kernel = kernel,
                          .stride = stride,
                          .padding = 2,
                          .dilation = kernel == 3 && stride == 2 ? 2 : 1,
                          .groups = c.groups};
          INFO(c.in, " to ", c.out, " channels in ", c.groups, " groups, kernel ", kernel, ", stride ", stride, ", ",
               p.h, " x ", p.w);
          CHECK(right<T>(p));
        }
}

TEST_CASE_TEMPLATE("padding made of the image matches its definition", T, float, double) {
  struct Layer {
    int in, out, groups;
  };
  for (const PaddingMode mode :
       {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular})
    for (const Layer& c : {Layer{1, 1, 1}, {16, 24, 1}, {3, 17, 1}, {32, 2, 1}, {9, 9, 9}, {8, 8, 2}, {32, 32, 1}})
      for (const int stride : {1, 2})
        for (const int padding : {0, 1, 2, 4})
          for (const std::pair<int, int>& size : {std::pair{5, 5}, {6, 11}}) {
            Problem p{.n = 2,
                      .h = size.first,
                      .w = size.second,
                      .in = c.in,
                      .out = c.out,
                      .kernel = padding == 2 ? 5 : 3,
                      .stride = stride,
                      .padding = padding,
                      .groups = c.groups,
                      .padding_mode = mode};
            if (padding <= 1) p.kernel = 1, p.kernel_w = 4, p.padding_w = 3;  // with 0 columns alone are padded
            INFO(std::string(st::padding_mode_text(mode)), ": ", c.in, " to ", c.out, " channels in ", c.groups,
                 " groups, padding ", padding, ", stride ", stride, ", ", p.h, " x ", p.w);
            CHECK(right<T>(p));
          }
}

TEST_CASE_TEMPLATE("kernels that are not square match their definition", T, float, double) {
  for (const std::pair<int, int>& c : {std::pair{1, 8}, {20, 24}, {64, 48}, {20, 3}, {3, 3}, {70, 1}, {18, 36}})
    for (const std::pair<int, int>& kernel : {std::pair{1, 7}, {7, 1}, {3, 1}, {2, 5}, {1, 3}})
      for (const int groups : {1, c.first})
        for (const int stride : {1, 2}) {
          if (c.second % groups != 0) continue;
          const Problem p{.n = 2,
                          .h = 8,
                          .w = 13,
                          .in = c.first,
                          .out = c.second,
                          .kernel = kernel.first,
                          .stride = stride,
                          .padding = kernel.first / 2,
                          .dilation = kernel.second == 3 ? 2 : 1,
                          .groups = groups,
                          .kernel_w = kernel.second,
                          .padding_w = kernel.second / 2};
          INFO(c.first, " to ", c.second, " channels in ", groups, " groups, kernel ", kernel.first, " x ",
               kernel.second, ", stride ", stride);
          CHECK(right<T>(p));
        }
}

TEST_CASE("convolutions with groups have the same bits for any number of threads") {
  const int before = st::num_threads();
  for (Problem p :
       {Problem{.n = 3, .h = 25, .w = 31, .in = 48, .out = 48, .groups = 12},
        {.n = 2, .h = 20, .w = 20, .in = 64, .out = 64, .groups = 2},
        {.n = 2, .h = 20, .w = 20, .in = 6, .out = 12, .groups = 6, .padding_mode = PaddingMode::reflect}}) {
    const Inputs<float> in(p);
    std::vector<Results<float>> results;
    for (const int threads : {1, 2, 3}) {
      st::set_num_threads(threads);
      results.push_back(computed(p, in));
    }
    CHECK(results[0] == results[1]);
    CHECK(results[0] == results[2]);
  }
  st::set_num_threads(before);
}

TEST_CASE_TEMPLATE("kernels of groups keep to their arrays", T, float, double) {
  for (const int width : {1, 2, 4, 8, 3})
    for (const int groups : {1, 3, 8, 11})
      for (const int kernel : {1, 3, 5})
        for (const int stride : {1, 2})
          for (const bool at_end : {false, true}) {
            const Problem p{.n = 2, .h = 7, .w = 13, .in = groups * width, .out = groups * width, .kernel = kernel,
                            .stride = stride, .padding = kernel / 2, .groups = groups};
            const Inputs<T> in(p);
            const Results<T> wanted = computed(p, in);
            Fenced<T> x(in.x, at_end), weight(in.weight, at_end), bias(in.bias, at_end), dy(in.dy, at_end);
            Fenced<T> y(unwritten<T>(p.output_size()), at_end), dx(unwritten<T>(p.input_size()), at_end);
            Fenced<T> dweight(unwritten<T>(p.weight_size()), at_end), dbias(unwritten<T>(p.out), at_end);
            const Kernels<T> run(p);
            run.forward(p, x.data(), weight.data(), bias.data(), y.data(), st::Activation::none);
            run.backward_input(p, dy.data(), weight.data(), dx.data(), false);
            run.backward_weight(p, x.data(), dy.data(), dweight.data(), dbias.data(), false);
            INFO(groups, " groups of ", width, ", kernel ", kernel, ", stride ", stride);
            CHECK(std::equal(wanted.y.begin(), wanted.y.end(), y.data()));
            CHECK(std::equal(wanted.dx.begin(), wanted.dx.end(), dx.data()));
            CHECK(std::equal(wanted.dweight.begin(), wanted.dweight.end(), dweight.data()));
            CHECK(std::equal(wanted.dbias.begin(), wanted.dbias.end(), dbias.data()));
          }
}

TEST_CASE("large results of grouped convolutions, which are written past the caches, are the same") {
  for (const int groups : {64, 16}) {
    const Problem large{.n = 5, .h = 120, .w = 121, .in = 64, .out = 64, .groups = groups};
    Problem small = large;
    small.n = 1;
    REQUIRE(large.input_size() * 2 * 4 >= st::cpu::detail::grouped_streamed_bytes);
    const Inputs<float> in(large);
    const Kernels<float> run(large);
    std::vector<float, st::PoolAllocator<float>> y(std::size_t(large.output_size()), -1.0f);
    std::vector<float> usual = unwritten<float>(large.output_size());
    run.forward(large, in.x.data(), in.weight.data(), in.bias.data(), y.data(), st::Activation::relu);
    for (std::int64_t n = 0; n < large.n; ++n)
      run.forward(small, in.x.data() + n * small.input_size(), in.weight.data(), in.bias.data(),
                  usual.data() + n * small.output_size(), st::Activation::relu);
    CHECK(std::equal(usual.begin(), usual.end(), y.begin()));
  }
}

TEST_CASE("a convolution of impossible groups or padding is refused") {
  const std::vector<float> numbers(4096, 1.0f);
  std::vector<float> y(4096);
  const auto run = [&](const Problem& p) {
    st::cpu::general_forward<1, float>(p, numbers.data(), numbers.data(), nullptr, y.data(), st::Activation::none);
  };
  CHECK_THROWS_WITH_AS(run({.h = 2, .w = 4, .padding = 0}), doctest::Contains("does not fit an image of 2x4"),
                       st::ShapeError);
  CHECK_THROWS_AS(run({.h = 0, .w = 4}), st::ShapeError);
  CHECK_THROWS_AS(run({.h = 4, .w = 4, .stride = 0}), st::ShapeError);
  CHECK_THROWS_WITH_AS(run({.h = 4, .w = 4, .in = 6, .out = 4, .groups = 4}),
                       doctest::Contains("4 groups of 6 input and 4 output channels"), st::ShapeError);
  CHECK_THROWS_WITH_AS(
      run({.h = 4, .w = 3, .kernel = 5, .padding = 3, .padding_mode = PaddingMode::reflect}),
      doctest::Contains(
          "padding_mode=reflect with a padding of 3 on an image of 4x3 pixels; the padding must be smaller"),
      st::ShapeError);
  CHECK_THROWS_WITH_AS(run({.h = 2, .w = 3, .kernel = 5, .padding = 3, .padding_mode = PaddingMode::circular}),
                       doctest::Contains("must not be larger than the image"), st::ShapeError);
}
