// What the tests of library calls share: arrays on the fake device, and convolutions and products in double from their
// formulas, written without a look at the code under test.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda_fakes/fake_device.hpp"
#include "cuda_fakes/numbers.hpp"
#include "strata/core/random.hpp"
#include "strata/cuda/workspace.cuh"
#include "strata/math/conv2d_problem.hpp"
#include "strata/math/precision.hpp"

namespace strata_test {

namespace st = strata;
using fake_device::Type;
using Numbers = std::vector<double>;

inline Type type_of(st::Precision precision) {
  return precision == st::Precision::fp16 ? Type::fp16 : precision == st::Precision::bf16 ? Type::bf16 : Type::fp32;
}

/// Numbers between -1 and 1 that the type holds exactly.
inline Numbers random_numbers(std::int64_t count, Type type, std::uint32_t stream) {
  st::Rng rng(7, stream);
  Numbers numbers(static_cast<std::size_t>(count));
  char place[4];
  for (double& x : numbers) {
    fake_device::write(type, place, double(rng.uniform(-1, 1)));
    x = fake_device::read(type, place);
  }
  return numbers;
}

/// An array on the fake device, `shift` elements behind the start of its allocation.
class Array {
 public:
  Array(const Numbers& numbers, Type type, std::size_t shift = 0)
      : type_(type),
        count_(numbers.size()),
        memory_((count_ + shift) * fake_device::size_of(type), fake_device::stream()),
        data_(static_cast<char*>(memory_.data()) + shift * fake_device::size_of(type)) {
    for (std::size_t i = 0; i < count_; ++i)
      fake_device::write(type_, data_ + i * fake_device::size_of(type_), numbers[i]);
  }
  /// NaN throughout.
  Array(std::int64_t count, Type type, std::size_t shift = 0)
      : Array(Numbers(static_cast<std::size_t>(count), std::nan("")), type, shift) {}

  void* data() const { return data_; }
  float* floats() const { return reinterpret_cast<float*>(data_); }
  Numbers numbers() const {
    Numbers out(count_);
    for (std::size_t i = 0; i < count_; ++i) out[i] = fake_device::read(type_, data_ + i * fake_device::size_of(type_));
    return out;
  }

 private:
  Type type_;
  std::size_t count_;
  st::cuda::DeviceScratch memory_;
  char* data_;
};

/// A sum, and the sum of the magnitudes, which its error is a part of.
struct Sum {
  double value = 0, magnitude = 0;
  void add(double x) {
    value += x;
    magnitude += std::abs(x);
  }
};
using Sums = std::vector<Sum>;

/// What one rounding of factors and one of the result may do, relative to the sum of magnitudes.
inline double tolerance(st::Precision precision) {
  switch (precision) {
    case st::Precision::fp32:
      return std::ldexp(1.0, -24);  // the fakes add in double and round once
    case st::Precision::tf32:
      return std::ldexp(1.0, -10);  // two factors, half a unit of the tenth bit each
    case st::Precision::fp16:
      return std::ldexp(1.0, -11);
    default:
      return std::ldexp(1.0, -8);
  }
}

inline void check_equal(const Numbers& given, const Sums& wanted, double part) {
  REQUIRE(given.size() == wanted.size());
  std::size_t wrong = 0, at = 0;
  for (std::size_t i = 0; i < given.size(); ++i)
    if (!(std::abs(given[i] - wanted[i].value) <= part * wanted[i].magnitude + 1e-40)) {
      if (wrong == 0) at = i;
      ++wrong;
    }
  if (wrong > 0)
    FAIL_CHECK(wrong, " of ", given.size(), " differ; the first at ", at, ": ", given[at], ", wanted ",
               wanted[at].value);
}

/// y[n, i, j, o] = sum of x[n, i*stride + p*dilation - padding, ..., c] * weight[o, p, q, c], and the two gradients.
/// Each is one walk over all products; f(index in x, in weight, in y).
template <class F>
void for_each_product(const st::Conv2dProblem& p, F&& f) {
  const std::int64_t out_h = (p.h + 2 * p.padding - p.dilation * (p.kernel - 1) - 1) / p.stride + 1;
  const std::int64_t out_w = (p.w + 2 * p.padding - p.dilation * (p.kernel - 1) - 1) / p.stride + 1;
  for (std::int64_t n = 0; n < p.n; ++n)
    for (std::int64_t i = 0; i < out_h; ++i)
      for (std::int64_t j = 0; j < out_w; ++j)
        for (std::int64_t o = 0; o < p.out; ++o)
          for (std::int64_t a = 0; a < p.kernel; ++a)
            for (std::int64_t b = 0; b < p.kernel; ++b) {
              const std::int64_t r = i * p.stride + a * p.dilation - p.padding,
                                 s = j * p.stride + b * p.dilation - p.padding;
              if (r < 0 || r >= p.h || s < 0 || s >= p.w) continue;
              for (std::int64_t c = 0; c < p.in; ++c)
                f(std::size_t(((n * p.h + r) * p.w + s) * p.in + c),
                  std::size_t(((o * p.kernel + a) * p.kernel + b) * p.in + c),
                  std::size_t(((n * out_h + i) * out_w + j) * p.out + o));
            }
}

/// Every test case leaves nothing behind, and no fake has complained.
inline void check_clean() {
  for (const std::string& text : fake_device::complaints()) FAIL_CHECK(text);
  fake_device::complaints().clear();
}

}  // namespace strata_test
