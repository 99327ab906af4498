// Pooling and pixel shuffle against their definitions, over shapes that are no multiple of a vector.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/numbers.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/pooling.hpp"

namespace {

namespace st = strata;

const std::vector<st::cpu::PoolProblem>& problems() {
  static const std::vector<st::cpu::PoolProblem> all = {
      {.n = 1, .h = 1, .w = 1, .channels = 1, .kernel = 1, .stride = 1},
      {.n = 2, .h = 5, .w = 7, .channels = 3, .kernel = 2, .stride = 2},
      {.n = 1, .h = 6, .w = 5, .channels = 16, .kernel = 3, .stride = 1},
      {.n = 3, .h = 4, .w = 9, .channels = 33, .kernel = 2, .stride = 1},
      {.n = 1, .h = 7, .w = 7, .channels = 21, .kernel = 2, .stride = 3},
      {.n = 2, .h = 8, .w = 8, .channels = 64, .kernel = 3, .stride = 2},
      {.n = 1, .h = 1, .w = 1, .channels = 17, .kernel = 3, .stride = 2, .padding = 1},
      {.n = 2, .h = 9, .w = 6, .channels = 19, .kernel = 3, .stride = 2, .padding = 1},
      {.n = 1, .h = 5, .w = 8, .channels = 33, .kernel = 4, .stride = 3, .padding = 2, .ceil = true},
      {.n = 2,
       .h = 6,
       .w = 7,
       .channels = 16,
       .kernel = 3,
       .stride = 2,
       .padding = 1,
       .ceil = true,
       .count_padding = false},
      {.n = 2, .h = 7, .w = 6, .channels = 33, .parts_h = 3, .parts_w = 4},
      {.n = 1, .h = 3, .w = 2, .channels = 16, .parts_h = 5, .parts_w = 2},
      {.n = 1, .h = 6, .w = 5, .channels = 3, .kernel = 2, .stride = 1, .parts_h = 3},
  };
  return all;
}

/// The pixels of window i along a side of `size`, those of the padding too; PyTorch's where `parts` divide the side.
std::vector<std::int64_t> window(const st::cpu::PoolProblem& p, std::int64_t i, std::int64_t size, int parts) {
  std::vector<std::int64_t> pixels;
  if (parts > 0)
    for (std::int64_t at = i * size / parts; at * parts < (i + 1) * size; ++at) pixels.push_back(at);
  else
    for (std::int64_t q = 0; q < p.kernel; ++q) pixels.push_back(i * p.stride + q - p.padding);
  return pixels;
}
/// Calls f(element of y, element of x) for every element of every window, in the windows' order.
template <class F>
void for_each_element(const st::cpu::PoolProblem& p, F f) {
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        for (std::int64_t c = 0; c < p.channels; ++c)
          for (const std::int64_t y : window(p, i, p.h, p.parts_h))
            for (const std::int64_t x : window(p, j, p.w, p.parts_w))
              if (y >= 0 && y < p.h && x >= 0 && x < p.w)
                f(((n * p.out_h() + i) * p.out_w() + j) * p.channels + c, ((n * p.h + y) * p.w + x) * p.channels + c);
}
/// What the mean at an element of y divides by.
std::vector<double> counts_of(const st::cpu::PoolProblem& p) {
  std::vector<double> counts;
  const auto along = [&](std::int64_t i, std::int64_t size, int parts) {
    std::int64_t count = 0;
    for (const std::int64_t at : window(p, i, size, parts))
      count += p.count_padding ? at < size + p.padding : at >= 0 && at < size;
    return count;
  };
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < p.out_h(); ++i)
      for (std::int64_t j = 0; j < p.out_w(); ++j)
        counts.insert(counts.end(), std::size_t(p.channels),
                      double(along(i, p.h, p.parts_h) * along(j, p.w, p.parts_w)));
  return counts;
}

std::int64_t size_of_x(const st::cpu::PoolProblem& p) { return p.n * p.h * p.w * p.channels; }
std::int64_t size_of_y(const st::cpu::PoolProblem& p) { return p.n * p.out_h() * p.out_w() * p.channels; }

}  // namespace

TEST_CASE_TEMPLATE("max pooling gives the largest value, its place and its gradient", T, float, double) {
  for (const st::cpu::PoolProblem& p : problems()) {
    CAPTURE(p.channels);
    std::vector<T> x = normal<T>(size_of_x(p), 1);
    for (std::size_t i = 0; i < x.size(); i += 5) x[i] = T(0.5);  // equals: the first counts
    const std::vector<T> dy = normal<T>(size_of_y(p), 2);
    std::vector<std::int64_t> best(std::size_t(size_of_y(p)), -1), from = best;
    for_each_element(p, [&](std::int64_t to, std::int64_t at) {
      std::int64_t& place = best[std::size_t(to)];
      if (place < 0 || x[std::size_t(at)] > x[std::size_t(place)]) place = at;
    });
    std::vector<T> y = unwritten<T>(size_of_y(p)), without_places = y;
    st::cpu::max_pool_forward(p, x.data(), y.data(), from.data());
    st::cpu::max_pool_forward<T>(p, x.data(), without_places.data(), nullptr);
    CHECK(from == best);
    CHECK(y == without_places);
    std::vector<T> dx(x.size(), T(1)), wanted = dx;
    st::cpu::max_pool_backward(p, from.data(), dy.data(), dx.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      CHECK(y[i] == x[std::size_t(best[i])]);
      wanted[std::size_t(best[i])] += dy[i];
    }
    CHECK(dx == wanted);
  }
}

TEST_CASE("max pooling lets a NaN through") {
  for (const int channels : {1, 19, 64}) {
    const st::cpu::PoolProblem p{.h = 4, .w = 4, .channels = channels};
    for (std::int64_t at : {std::int64_t{0}, std::int64_t{5 * channels + channels - 1}}) {
      std::vector<float> x = normal<float>(size_of_x(p), 1), y = unwritten<float>(size_of_y(p));
      x[std::size_t(at)] = std::numeric_limits<float>::quiet_NaN();
      std::vector<std::int64_t> from(y.size());
      st::cpu::max_pool_forward(p, x.data(), y.data(), from.data());
      CHECK(std::isnan(y[std::size_t(at % channels)]));
      CHECK(from[std::size_t(at % channels)] == at);
    }
  }
}

TEST_CASE_TEMPLATE("average pooling and its gradient match their definition", T, float, double) {
  const double tolerance = 8 * double(std::numeric_limits<T>::epsilon());  // 9 additions and a product
  for (const st::cpu::PoolProblem& p : problems()) {
    const std::vector<T> x = normal<T>(size_of_x(p), 1), dy = normal<T>(size_of_y(p), 2);
    std::vector<double> y(std::size_t(size_of_y(p)), 0.0), magnitude = y;
    std::vector<double> dx(x.size(), 1.0), dx_magnitude = dx;
    const std::vector<double> counts = counts_of(p);
    for_each_element(p, [&](std::int64_t to, std::int64_t at) {
      const double share = 1 / counts[std::size_t(to)];
      y[std::size_t(to)] += share * double(x[std::size_t(at)]);
      magnitude[std::size_t(to)] += share * std::abs(double(x[std::size_t(at)]));
      dx[std::size_t(at)] += share * double(dy[std::size_t(to)]);
      dx_magnitude[std::size_t(at)] += share * std::abs(double(dy[std::size_t(to)]));
    });
    std::vector<T> got = unwritten<T>(size_of_y(p)), got_dx(x.size(), T(1));
    st::cpu::avg_pool_forward(p, x.data(), got.data());
    st::cpu::avg_pool_backward(p, dy.data(), got_dx.data());
    for (std::size_t i = 0; i < got.size(); ++i)
      CHECK(std::abs(double(got[i]) - y[i]) <= tolerance * magnitude[i]);
    for (std::size_t i = 0; i < dx.size(); ++i)
      CHECK(std::abs(double(got_dx[i]) - dx[i]) <= tolerance * dx_magnitude[i]);
  }
}

TEST_CASE_TEMPLATE("global average pooling and its gradient match their definition", T, float, double) {
  const double tolerance = 64 * double(std::numeric_limits<T>::epsilon());  // 32 additions in T at a time
  for (const auto& [n, pixels, channels] :
       {std::array{1, 1, 1}, {2, 63, 3}, {3, 65, 16}, {1, 2500, 70}, {2, 1025, 64}}) {
    const std::vector<T> x = normal<T>(n * pixels * channels, 1), dy = normal<T>(n * channels, 2);
    std::vector<T> y = unwritten<T>(n * channels), dx = unwritten<T>(n * pixels * channels);
    st::cpu::global_avg_pool_forward<T>(n, pixels, channels, x.data(), y.data());
    st::cpu::global_avg_pool_backward<T>(n, pixels, channels, dy.data(), dx.data(), false);
    st::cpu::global_avg_pool_backward<T>(n, pixels, channels, dy.data(), dx.data(), true);
    for (int image = 0; image < n; ++image)
      for (int c = 0; c < channels; ++c) {
        double sum = 0, magnitude = 0;
        const double g = double(dy[std::size_t(image * channels + c)]) / pixels;
        for (int p = 0; p < pixels; ++p) {
          const std::size_t at = std::size_t((image * pixels + p) * channels + c);
          sum += double(x[at]);
          magnitude += std::abs(double(x[at]));
          CHECK(std::abs(double(dx[at]) - 2 * g) <= tolerance * std::abs(g));
        }
        CHECK(std::abs(double(y[std::size_t(image * channels + c)]) - sum / pixels) <= tolerance * magnitude / pixels);
      }
  }
}

TEST_CASE_TEMPLATE("pixel shuffle moves every element to its place and back", T, float, double) {
  for (const auto& [n, h, w, channels, r] : {std::array{1, 1, 1, 1, 1},
                                             {1, 2, 3, 1, 2},
                                             {2, 3, 37, 1, 2},
                                             {1, 2, 5, 3, 2},
                                             {1, 3, 4, 16, 2},
                                             {2, 2, 3, 64, 2},
                                             {1, 2, 3, 24, 2},
                                             {1, 3, 5, 1, 3},
                                             {2, 2, 2, 3, 3},
                                             {1, 2, 3, 5, 3},
                                             {1, 2, 3, 1, 4},
                                             {1, 1, 2, 3, 4}}) {
    CAPTURE(channels);
    CAPTURE(r);
    const std::int64_t size = std::int64_t{n} * h * w * channels * r * r;
    const std::vector<T> small = normal<T>(size, 1);
    std::vector<T> large = unwritten<T>(size), back = large;
    st::cpu::pixel_shuffle<T>(n, h, w, channels, r, small.data(), large.data(), false, false);
    st::cpu::pixel_shuffle<T>(n, h, w, channels, r, large.data(), back.data(), true, false);
    CHECK(back == small);
    bool right = true;
    for (std::int64_t e = 0; e < size; ++e) {
      const std::int64_t k = e % (channels * r * r), pixel = e / (channels * r * r);
      const std::int64_t c = k / (r * r), p = k / r % r, q = k % r, j = pixel % w, row = pixel / w;  // row = n * h + i
      right &= large[std::size_t(((row * r + p) * w * r + j * r + q) * channels + c)] == small[std::size_t(e)];
    }
    CHECK(right);
    st::cpu::pixel_shuffle<T>(n, h, w, channels, r, small.data(), large.data(), false, true);
    st::cpu::pixel_shuffle<T>(n, h, w, channels, r, large.data(), back.data(), true, true);
    for (std::size_t e = 0; e < small.size(); ++e) CHECK(back[e] == small[e] + (small[e] + small[e]));
  }
}
