// Resizing and borders against their definitions in double, over shapes that are no multiple of a vector, between
// closed pages, added to what is there, and the same bits for any number of threads.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/numbers.hpp"
#include "largest.hpp"
#include "strata/core/parallel.hpp"
#include "strata/cpu/pad.hpp"
#include "strata/cpu/resize.hpp"

namespace {

namespace st = strata;
using st::InterpolateMode;
using st::PaddingMode;

/// A pixel of the result as shares of pixels of the image along one axis: row i, column of the image. A share may be a
/// sum of several, where a border is read again and again; its rounding follows their magnitudes.
struct Share {
  double value = 0, magnitude = 0;
  void add(double share) { value += share, magnitude += std::abs(share); }
};
using Matrix = std::vector<std::vector<Share>>;

double keys(double x) {  // Keys, 1981, with a = -0.75
  x = std::abs(x);
  const double a = -0.75;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? a * (((x - 5) * x + 8) * x - 4) : 0;
}

Matrix resizing(std::int64_t size, std::int64_t result, InterpolateMode mode, bool align_corners) {
  Matrix m;
  m.resize(std::size_t(result), std::vector<Share>(std::size_t(size)));
  for (std::int64_t i = 0; i < result; ++i) {
    const auto add = [&](std::int64_t at, double share) {
      m[std::size_t(i)][std::size_t(std::clamp<std::int64_t>(at, 0, size - 1))].add(share);
    };
    if (mode == InterpolateMode::nearest) {
      add(i * size / result, 1);
      continue;
    }
    double place = (double(i) + 0.5) * double(size) / double(result) - 0.5;
    if (align_corners) place = result > 1 ? double(i) * double(size - 1) / double(result - 1) : 0.0;
    if (mode == InterpolateMode::bilinear) place = std::max(place, 0.0);
    const auto first = std::int64_t(std::floor(place + 1e-9));  // places are fractions: no other is so near
    const double t = place - double(first);
    if (mode == InterpolateMode::bilinear)
      add(first, 1 - t), add(first + 1, t);
    else
      for (int k = -1; k <= 2; ++k) add(first + k, keys(t - k));
  }
  return m;
}

Matrix padding(std::int64_t size, std::int64_t before, std::int64_t behind, PaddingMode mode) {
  Matrix m;
  for (std::int64_t i = -before; i < size + behind; ++i) {
    m.emplace_back(std::size_t(size));
    std::int64_t at = i;
    if (mode == PaddingMode::reflect)
      while (at < 0 || at >= size) at = at < 0 ? -at : 2 * (size - 1) - at;
    if (mode == PaddingMode::circular) at = (at + size) % size;
    if (mode == PaddingMode::replicate) at = std::clamp<std::int64_t>(at, 0, size - 1);
    if (at >= 0 && at < size) m.back()[std::size_t(at)].add(1);
  }
  return m;
}

/// y[n, i, j, c] = sum over h, w of rows[i][h] columns[j][w] x[n, h, w, c]; back: the same the other way round.
struct Map {
  std::int64_t n, h, w;
  int channels;
  Matrix rows, columns;

  std::int64_t x_size() const { return n * h * w * channels; }
  std::int64_t y_size() const { return n * std::int64_t(rows.size() * columns.size()) * channels; }
  /// Calls f(place in x, place in y, share).
  void each(auto&& f) const {
    const auto high = std::int64_t(rows.size()), wide = std::int64_t(columns.size());
    for (std::int64_t image = 0; image < n; ++image)
      for (std::int64_t i = 0; i < high; ++i)
        for (std::int64_t j = 0; j < wide; ++j)
          for (std::int64_t a = 0; a < h; ++a)
            for (std::int64_t b = 0; b < w; ++b) {
              const Share &row = rows[std::size_t(i)][std::size_t(a)],
                          &column = columns[std::size_t(j)][std::size_t(b)];
              const Share share{row.value * column.value, row.magnitude * column.magnitude};
              for (int c = 0; share.magnitude != 0 && c < channels; ++c)
                f(std::size_t(((image * h + a) * w + b) * channels + c),
                  std::size_t(((image * high + i) * wide + j) * channels + c), share);
            }
  }
};

/// forward(x, y) and backward(dy, dx, accumulate) against the map, between closed pages on either side.
template <class T>
void check(const Map& map, auto&& forward, auto&& backward) {
  const std::vector<T> x = normal<T>(map.x_size(), 1), dy = normal<T>(map.y_size(), 2);
  std::vector<double> y(std::size_t(map.y_size()), 0.0), y_all = y, dx(std::size_t(map.x_size()), 0.0), dx_all = dx;
  map.each([&](std::size_t from, std::size_t to, const Share& share) {
    y[to] += share.value * double(x[from]), y_all[to] += share.magnitude * std::abs(double(x[from]));
    dx[from] += share.value * double(dy[to]), dx_all[from] += share.magnitude * std::abs(double(dy[to]));
  });
  const double unit = 16 * double(std::numeric_limits<T>::epsilon());  // shares are rounded too
  const auto error = [](const T* got, const std::vector<double>& wanted, const std::vector<double>& all,
                        double before) {
    double largest = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i)
      strata_test::keep_largest(largest, std::abs(double(got[i]) - before - wanted[i]) / (1 + all[i]));
    return largest;
  };
  std::vector<T> first_y, first_dx;
  const int before = st::num_threads();
  for (const int threads : {1, 2, 3}) {
    st::set_num_threads(threads);
    const bool at_end = threads != 2;
    Fenced<T> in(x, at_end), gradient(dy, at_end), out(unwritten<T>(map.y_size()), at_end);
    Fenced<T> back(unwritten<T>(map.x_size()), at_end), added(std::vector<T>(x.size(), T(1)), at_end);
    forward(in.data(), out.data());
    backward(gradient.data(), back.data(), false);
    backward(gradient.data(), added.data(), true);
    CHECK(error(out.data(), y, y_all, 0) <= unit);
    CHECK(error(back.data(), dx, dx_all, 0) <= unit);
    CHECK(error(added.data(), dx, dx_all, 1) <= unit);
    const std::vector<T> ys(out.data(), out.data() + y.size()), dxs(back.data(), back.data() + dx.size());
    if (threads == 1) first_y = ys, first_dx = dxs;
    CHECK(ys == first_y);
    CHECK(dxs == first_dx);
  }
  st::set_num_threads(before);
}

}  // namespace

TEST_CASE_TEMPLATE("resizing matches its definition", T, float, double) {
  for (const int channels : {1, 3, 17, 33, 64})
    for (const InterpolateMode mode : {InterpolateMode::nearest, InterpolateMode::bilinear, InterpolateMode::bicubic})
      for (const bool align : {false, true})
        for (const std::int64_t h : {1, 2, 7})
          for (const std::int64_t to : {1, 3, 7, 10}) {
            if (align && mode == InterpolateMode::nearest) continue;
            const std::int64_t w = 8 - h, to_w = 11 - to;
            const st::ResizeProblem p{.n = 2,
                                      .channels = channels,
                                      .rows = st::ResizeAxis::to(h, to),
                                      .columns = st::ResizeAxis::to(w, to_w),
                                      .mode = mode,
                                      .align_corners = align};
            INFO(channels, " channels, ", h, " x ", w, " to ", to, " x ", to_w, ", mode ", int(mode), ", align ",
                 align);
            check<T>(
                {2, h, w, channels, resizing(h, to, mode, align), resizing(w, to_w, mode, align)},
                [&](const T* x, T* y) { st::cpu::resize_forward(p, x, y); },
                [&](const T* dy, T* dx, bool add) { st::cpu::resize_backward(p, dy, dx, add); });
          }
}

TEST_CASE_TEMPLATE("borders match their definition", T, float, double) {
  int problems = 0;
  for (const int channels : {1, 3, 17, 33})
    for (const PaddingMode mode :
         {PaddingMode::zeros, PaddingMode::reflect, PaddingMode::replicate, PaddingMode::circular})
      for (const std::int64_t h : {1, 2, 7})
        for (const st::Margins& m : {st::Margins{},
                                     {.left = 2},
                                     {.right = 3},
                                     {.top = 1},
                                     {.bottom = 4},
                                     {3, 1, 2, 5},
                                     {-1, 2, 0, -1},
                                     {.left = 9, .right = 8, .top = 7, .bottom = 9}}) {
          const std::int64_t w = 8 - h;
          if (h + m.top + m.bottom < 1 || w + m.left + m.right < 1) continue;
          if (mode == PaddingMode::reflect && (std::max(m.top, m.bottom) >= h || std::max(m.left, m.right) >= w))
            continue;
          if (mode == PaddingMode::circular && (std::max(m.top, m.bottom) > h || std::max(m.left, m.right) > w))
            continue;
          const st::PadProblem p{.n = 2, .h = h, .w = w, .channels = channels, .margins = m, .mode = mode};
          INFO(channels, " channels, ", h, " x ", w, ", mode ", int(mode), ", margins ", m.left, " ", m.right, " ",
               m.top, " ", m.bottom);
          check<T>(
              {2, h, w, channels, padding(h, m.top, m.bottom, mode), padding(w, m.left, m.right, mode)},
              [&](const T* x, T* y) { st::cpu::pad_forward(p, x, y); },
              [&](const T* dy, T* dx, bool add) { st::cpu::pad_backward(p, dy, dx, add); });
          ++problems;
        }
  CHECK(problems > 150);
}
