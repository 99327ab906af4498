// Group and layer normalisation and upsampling against their definitions in double, over shapes that are no multiple of
// a vector; their gradients against the definitions' directional derivatives.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "cpu/numbers.hpp"
#include "strata/core/parallel.hpp"
#include "strata/core/random.hpp"
#include "strata/cpu/group_norm.hpp"
#include "strata/cpu/layer_norm.hpp"
#include "strata/cpu/upsample.hpp"

namespace {

namespace st = strata;
using Doubles = std::vector<double>;

template <class T>
Doubles exact(const std::vector<T>& values) {
  return Doubles(values.begin(), values.end());
}
double dot(const Doubles& a, const Doubles& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void check_near(const std::vector<T>& got, const Doubles& wanted) {
  REQUIRE(got.size() == wanted.size());
  const double tolerance = std::is_same_v<T, float> ? 1e-5 : 1e-12;
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i)
    wrong += !(std::abs(double(got[i]) - wanted[i]) <= tolerance * (1 + std::abs(wanted[i])));
  CHECK(wrong == 0);
}

/// dx must be what `f` changes by in three random directions, times dy.
template <class T>
void check_gradient(const std::function<Doubles(const Doubles&)>& f, const Doubles& x, const std::vector<T>& dy,
                    const std::vector<T>& dx) {
  for (std::uint32_t direction = 0; direction < 3; ++direction) {
    const Doubles v = normal<double>(std::int64_t(x.size()), 100 + direction);
    Doubles above = x, below = x;
    const double step = 1e-5;
    for (std::size_t i = 0; i < x.size(); ++i) above[i] += step * v[i], below[i] -= step * v[i];
    const double wanted = (dot(f(above), exact(dy)) - dot(f(below), exact(dy))) / (2 * step), got = dot(exact(dx), v);
    const double size = std::sqrt(dot(exact(dx), exact(dx)) * dot(v, v));
    CHECK(std::abs(got - wanted) <= (std::is_same_v<T, float> ? 1e-5 : 1e-8) * (size + 1));
  }
}

/// The same bits from 1, 2 and 3 threads, what was there before is overwritten, and accumulate adds to it.
template <class T>
std::vector<T> run(std::int64_t size, const std::function<void(T*, bool)>& kernel) {
  const int threads_before = st::num_threads();
  std::vector<T> first;
  for (int threads = 1; threads <= 3; ++threads) {
    st::set_num_threads(threads);
    std::vector<T> y = unwritten<T>(size);
    kernel(y.data(), false);
    if (threads == 1) first = y;
    CHECK(y == first);
  }
  st::set_num_threads(threads_before);
  std::vector<T> added = normal<T>(size, 77);
  Doubles wanted(added.begin(), added.end());
  kernel(added.data(), true);
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] += double(first[i]);
  check_near(added, wanted);
  return first;
}

Doubles normalised(const Doubles& x, std::int64_t outer, std::int64_t pixels, int channels, int group, double eps,
                   const Doubles& weight, const Doubles& bias) {
  Doubles y(x.size());
  for (std::int64_t n = 0; n < outer; ++n)
    for (int g = 0; g < channels; g += group) {
      const auto at = [&](std::int64_t p, int c) { return std::size_t((n * pixels + p) * channels + c); };
      double mean = 0, variance = 0;
      const double count = double(pixels * group);
      for (std::int64_t p = 0; p < pixels; ++p)
        for (int c = g; c < g + group; ++c) mean += x[at(p, c)] / count;
      for (std::int64_t p = 0; p < pixels; ++p)
        for (int c = g; c < g + group; ++c) variance += (x[at(p, c)] - mean) * (x[at(p, c)] - mean) / count;
      for (std::int64_t p = 0; p < pixels; ++p)
        for (int c = g; c < g + group; ++c)
          y[at(p, c)] =
              (x[at(p, c)] - mean) / std::sqrt(variance + eps) * weight[std::size_t(c)] + bias[std::size_t(c)];
    }
  return y;
}

}  // namespace

TEST_CASE_TEMPLATE("group normalisation and its gradients", T, float, double) {
  for (const st::GroupNormProblem& p :
       std::vector<st::GroupNormProblem>{{.n = 1, .pixels = 2, .channels = 1, .groups = 1},
                                         {.n = 2, .pixels = 35, .channels = 6, .groups = 2},
                                         {.n = 3, .pixels = 7, .channels = 17, .groups = 17, .eps = 1e-2},
                                         {.n = 1, .pixels = 5000, .channels = 20, .groups = 1},
                                         {.n = 5, .pixels = 700, .channels = 48, .groups = 6}}) {
    CAPTURE(p.channels);
    const std::int64_t size = p.n * p.pixels * p.channels;
    const auto x = normal<T>(size, 1), weight = normal<T>(p.channels, 2), bias = normal<T>(p.channels, 3),
               dy = normal<T>(size, 4);
    auto numbers = unwritten<T>(p.numbers()), y = unwritten<T>(size);
    const auto f = [&](const Doubles& input) {
      return normalised(input, p.n, p.pixels, p.channels, p.channels / p.groups, p.eps, exact(weight), exact(bias));
    };
    st::cpu::group_norm_forward(p, x.data(), weight.data(), bias.data(), y.data(), numbers.data());
    check_near(y, f(exact(x)));
    const auto backward = [&](T* dx, bool accumulate, T* dweight, bool more_weight, T* dbias, bool more_bias) {
      st::cpu::group_norm_backward<T>(p, x.data(), numbers.data(), dy.data(), dx, accumulate, dweight, more_weight,
                                      dbias, more_bias);
    };
    check_gradient<T>(f, exact(x), dy,
                      run<T>(size, [&](T* dx, bool more) { backward(dx, more, nullptr, false, nullptr, false); }));
    const auto dweight =
        run<T>(p.channels, [&](T* d, bool more) { backward(nullptr, false, d, more, nullptr, false); });
    const auto dbias = run<T>(p.channels, [&](T* d, bool more) { backward(nullptr, false, nullptr, false, d, more); });
    check_gradient<T>(
        [&](const Doubles& w) {
          return normalised(exact(x), p.n, p.pixels, p.channels, p.channels / p.groups, p.eps, w, exact(bias));
        },
        exact(weight), dy, dweight);
    check_gradient<T>(
        [&](const Doubles& b) {
          return normalised(exact(x), p.n, p.pixels, p.channels, p.channels / p.groups, p.eps, exact(weight), b);
        },
        exact(bias), dy, dbias);
    st::cpu::group_norm_forward<T>(p, x.data(), nullptr, nullptr, y.data(), numbers.data());
    check_near(y, normalised(exact(x), p.n, p.pixels, p.channels, p.channels / p.groups, p.eps,
                             Doubles(weight.size(), 1), Doubles(bias.size(), 0)));
  }
}

TEST_CASE_TEMPLATE("layer normalisation and its gradients", T, float, double) {
  for (const auto& [pixels, channels] :
       std::vector<std::pair<std::int64_t, int>>{{1, 2}, {3, 5}, {70, 8}, {33, 19}, {900, 35}, {5, 260}}) {
    CAPTURE(channels);
    const double eps = 1e-3;
    const std::int64_t size = pixels * channels, outer = pixels;
    const int all = channels;
    const auto x = normal<T>(size, 1), weight = normal<T>(channels, 2), bias = normal<T>(channels, 3),
               dy = normal<T>(size, 4);
    auto numbers = unwritten<T>(2 * pixels), y = unwritten<T>(size), alone = y;
    const auto f = [&](const Doubles& input) {
      return normalised(input, outer, 1, all, all, eps, exact(weight), exact(bias));
    };
    st::cpu::layer_norm_forward(pixels, channels, eps, x.data(), weight.data(), bias.data(), y.data(), numbers.data());
    st::cpu::layer_norm_forward<T>(pixels, channels, eps, x.data(), weight.data(), bias.data(), alone.data(), nullptr);
    check_near(y, f(exact(x)));
    CHECK(y == alone);
    const auto backward = [&](T* dx, bool accumulate, T* dweight, bool more_weight, T* dbias, bool more_bias) {
      st::cpu::layer_norm_backward<T>(outer, all, x.data(), numbers.data(), weight.data(), dy.data(), dx, accumulate,
                                      dweight, more_weight, dbias, more_bias);
    };
    check_gradient<T>(f, exact(x), dy,
                      run<T>(size, [&](T* dx, bool more) { backward(dx, more, nullptr, false, nullptr, false); }));
    const auto dweight = run<T>(channels, [&](T* d, bool more) { backward(nullptr, false, d, more, nullptr, false); });
    const auto dbias = run<T>(channels, [&](T* d, bool more) { backward(nullptr, false, nullptr, false, d, more); });
    check_gradient<T>([&](const Doubles& w) { return normalised(exact(x), outer, 1, all, all, eps, w, exact(bias)); },
                      exact(weight), dy, dweight);
    check_gradient<T>([&](const Doubles& b) { return normalised(exact(x), outer, 1, all, all, eps, exact(weight), b); },
                      exact(bias), dy, dbias);
  }
}

TEST_CASE_TEMPLATE("upsampling and its gradient", T, float, double) {
  for (const st::UpsampleMode mode : {st::UpsampleMode::nearest, st::UpsampleMode::bilinear})
    for (st::UpsampleProblem p :
         std::vector<st::UpsampleProblem>{{.n = 1, .h = 1, .w = 1, .channels = 1, .factor = 2},
                                          {.n = 2, .h = 3, .w = 5, .channels = 3, .factor = 3},
                                          {.n = 1, .h = 7, .w = 2, .channels = 17, .factor = 4},
                                          {.n = 3, .h = 1, .w = 9, .channels = 40, .factor = 2},
                                          {.n = 1, .h = 6, .w = 6, .channels = 8, .factor = 1}}) {
      p.mode = mode;
      CAPTURE(p.factor);
      CAPTURE(p.channels);
      const std::int64_t small = p.n * p.h * p.w * p.channels, large = small * p.factor * p.factor;
      const auto f = [&](const Doubles& x) {  // by places in the small image, from the definition
        const auto share = [&](std::int64_t to, std::int64_t from, std::int64_t size) {
          if (mode == st::UpsampleMode::nearest) return to / p.factor == from ? 1.0 : 0.0;
          const double place = std::min(std::max((double(to) + 0.5) / p.factor - 0.5, 0.0), double(size - 1));
          return std::max(0.0, 1 - std::abs(place - double(from)));
        };
        Doubles y(std::size_t(large), 0.0);
        for (std::int64_t n = 0; n < p.n; ++n)
          for (std::int64_t i = 0; i < p.h * p.factor; ++i)
            for (std::int64_t j = 0; j < p.w * p.factor; ++j)
              for (std::int64_t q = 0; q < p.h; ++q)
                for (std::int64_t r = 0; r < p.w; ++r)
                  for (int c = 0; c < p.channels; ++c)
                    y[std::size_t(((n * p.h * p.factor + i) * p.w * p.factor + j) * p.channels + c)] +=
                        share(i, q, p.h) * share(j, r, p.w) *
                        x[std::size_t(((n * p.h + q) * p.w + r) * p.channels + c)];
        return y;
      };
      const auto x = normal<T>(small, 1), dy = normal<T>(large, 2);
      auto y = unwritten<T>(large);
      st::cpu::upsample_forward(p, x.data(), y.data());
      check_near(y, f(exact(x)));
      check_gradient<T>(f, exact(x), dy, run<T>(small, [&](T* dx, bool more) {
                          st::cpu::upsample_backward<T>(p, dy.data(), dx, more);
                        }));
    }
}
