// Activations and the optimisers' sums against their definitions, and the same bits for any number of threads.
#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/numbers.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/copy_channels.hpp"
#include "strata/cpu/optimizer.hpp"
#include "strata/cpu/pointwise.hpp"

namespace {

namespace st = strata;

}  // namespace

TEST_CASE_TEMPLATE("PReLU and its gradients match their definition", T, float, double) {
  constexpr double epsilon = double(std::numeric_limits<T>::epsilon());
  for (const auto& [pixels, channels, slopes] : {std::array{1, 1, 1},
                                                 {7, 3, 3},
                                                 {7, 3, 1},
                                                 {1000, 5, 5},
                                                 {33, 64, 64},
                                                 {5000, 16, 16},
                                                 {40000, 1, 1},
                                                 {9, 70, 70}}) {
    CAPTURE(channels);
    const std::int64_t size = std::int64_t{pixels} * channels;
    const std::vector<T> x = normal<T>(size, 1), dy = normal<T>(size, 2), slope = normal<T>(slopes, 3);
    std::vector<T> y(std::size_t(size), std::numeric_limits<T>::quiet_NaN()), dx = y;
    std::vector<T> dslope(std::size_t(slopes), T(1)), alone = dslope;
    st::cpu::prelu_forward(pixels, channels, x.data(), slope.data(), slopes, y.data());
    st::cpu::prelu_backward(pixels, channels, x.data(), slope.data(), slopes, dy.data(), dx.data(), false,
                            dslope.data());
    st::cpu::prelu_backward<T>(pixels, channels, x.data(), slope.data(), slopes, dy.data(), nullptr, false,
                               alone.data());
    CHECK(dslope == alone);
    std::vector<double> sums(std::size_t(slopes), 1.0), magnitudes(std::size_t(slopes), 1.0);
    bool right = true;
    for (std::int64_t e = 0; e < size; ++e) {
      const std::size_t i = std::size_t(e), s = std::size_t(slopes == 1 ? 0 : e % channels);
      right &= y[i] == (x[i] > T(0) ? x[i] : slope[s] * x[i]) && dx[i] == (x[i] > T(0) ? dy[i] : slope[s] * dy[i]);
      if (x[i] > T(0)) continue;
      sums[s] += double(x[i]) * double(dy[i]);
      magnitudes[s] += std::abs(double(x[i]) * double(dy[i]));
    }
    CHECK(right);
    for (std::size_t s = 0; s < sums.size(); ++s)  // at most 64 additions in T, one rounding at the end
      CHECK(std::abs(double(dslope[s]) - sums[s]) <= 66 * epsilon * magnitudes[s]);
    const std::vector<T> before = dx;
    st::cpu::prelu_backward(pixels, channels, x.data(), slope.data(), slopes, dy.data(), dx.data(), true,
                            dslope.data());
    for (std::size_t i = 0; i < dx.size(); ++i) CHECK(dx[i] == before[i] + before[i]);
  }
}

TEST_CASE("sums over elements have the same bits for any number of threads") {
  const int threads_before = st::num_threads();
  const std::vector<float> x = normal<float>(100003, 1), dy = normal<float>(100003, 2);
  std::vector<double> squares;
  std::vector<std::vector<float>> slopes;
  for (int threads = 1; threads <= 3; ++threads) {
    st::set_num_threads(threads);
    squares.push_back(st::cpu::sum_of_squares(std::int64_t(x.size()), x.data()));
    slopes.emplace_back(7, 0.0f);
    st::cpu::prelu_backward<float>(100003 / 7, 7, x.data(), dy.data(), 7, dy.data(), nullptr, false,
                                   slopes.back().data());
  }
  st::set_num_threads(threads_before);
  CHECK(squares[0] == squares[1]);
  CHECK(squares[0] == squares[2]);
  CHECK(slopes[0] == slopes[1]);
  CHECK(slopes[0] == slopes[2]);
  double wanted = 0;
  for (const float value : x) wanted += double(value) * double(value);
  CHECK(squares[0] == doctest::Approx(wanted).epsilon(1e-12));
}

TEST_CASE("the sum of squares of few elements reads nothing beyond them") {
  for (std::int64_t count = 0; count < 70; ++count) {
    const std::vector<float> x = normal<float>(count, 1);
    double wanted = 0;
    for (const float value : x) wanted += double(value) * double(value);
    CHECK(st::cpu::sum_of_squares(count, x.data()) == doctest::Approx(wanted).epsilon(1e-14));
  }
}

TEST_CASE_TEMPLATE("channels are copied and added between images of other numbers of channels", T, float, double) {
  for (const std::int64_t pixels : {1, 3, 700})
    for (const std::int64_t channels : {1, 2, 3, 7, 8, 16, 17, 31, 64, 65})
      for (const std::int64_t more : {0, 1, 13})
        for (const bool repeats : {false, true})
          for (const bool add : {false, true}) {
            CAPTURE(pixels);
            CAPTURE(channels);
            const std::int64_t from_stride = repeats ? 0 : channels + more, to_stride = channels + 2 * more;
            std::vector<T> from(std::size_t(pixels * (channels + more))),
                to(std::size_t(pixels * to_stride) + 1, T(-9));
            for (std::size_t i = 0; i < from.size(); ++i) from[i] = T(i % 1009) + T(0.5);
            st::cpu::copy_channels(pixels, channels, from.data(), from_stride, to.data(), to_stride, add);
            std::int64_t wrong = 0;  // what lies between the channels is left alone
            for (std::int64_t i = 0; i < std::int64_t(to.size()); ++i) {
              const std::int64_t pixel = i / to_stride, c = i % to_stride;
              const bool written = pixel < pixels && c < channels;
              const T copied = written ? from[std::size_t(pixel * from_stride + c)] : T(0);
              const T wanted = written && !add ? copied : T(-9) + copied;
              wrong += to[std::size_t(i)] != wanted;
            }
            CHECK(wrong == 0);
          }
}
