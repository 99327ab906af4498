// The scalar functions that expressions are made of: a value, and what it hands back to its arguments. They take single
// numbers and simd vectors alike.
//
//     y = f(a)       ga = Function::derivative(a, y) * gy
//     y = f(a, b)    Function::backward(a, b, y, gy, ga, gb)
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "strata/core/config.hpp"
#include "strata/core/rounded.hpp"
#include "strata/core/simd.hpp"

namespace strata { inline namespace STRATA_ABI { namespace math {

/// f of each element.
template <class V, class F>
[[gnu::always_inline]] inline V each(V value, F f) {
  if constexpr (std::is_floating_point_v<V>) {
    return f(value);
  } else {
    for (int i = 0; i < simd::lanes<V>; ++i) value[i] = f(value[i]);
    return value;
  }
}

template <class V>
[[gnu::always_inline]] inline V square_root(V value) {
  // <immintrin.h> alone takes half a second to compile.
#if defined(__AVX512F__) && __has_builtin(__builtin_ia32_sqrtps512)
  if constexpr (std::is_same_v<simd::Lane<V>, float> && sizeof(V) == 64) {
#if defined(__clang__)
    return __builtin_ia32_sqrtps512(value, 4);  // 4: round as the processor is set to
#else
    return __builtin_ia32_sqrtps512(value);
#endif
  }
#endif
#if defined(__AVX__) && __has_builtin(__builtin_ia32_sqrtps256)
  if constexpr (std::is_same_v<simd::Lane<V>, float> && sizeof(V) == 32) return __builtin_ia32_sqrtps256(value);
#endif
  return each(value, [](auto x) { return std::sqrt(x); });
}

/// a where condition holds, else b, for vectors and single numbers.
template <class M, class V>
[[gnu::always_inline]] inline V select(M condition, V a, V b) {
  return condition ? a : b;
}

/// e^x, within 2 units in the last place; below -87.3 it is 0, as denormals are. For vectors of floats Cody and Waite's
/// reduction to |r| <= log(2) / 2 and the polynomial of Cephes' expf. Single floats go through a vector, here and
/// below, so that an element has the same bits wherever it lies.
template <class V>
[[gnu::always_inline]] inline V exponential(V x) {
  if constexpr (!std::is_same_v<simd::Lane<V>, float>) {
    return each(x, [](auto number) { return std::exp(number); });
  } else if constexpr (std::is_same_v<V, float>) {
    return exponential(simd::Vector<float>{} + x)[0];
  } else {
    typedef std::uint32_t Bits __attribute__((vector_size(sizeof(V))));
    constexpr float magic = 12582912.0f;  // 1.5 * 2^23: its last bits take the whole number
    const V shifted = strata::detail::rounded(x * 1.44269504088896341f + magic), n = shifted - magic;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const V y = p * (r * r) + r + 1.0f;
    const V scaled = std::bit_cast<V>(std::bit_cast<Bits>(y) + (std::bit_cast<Bits>(shifted) << 23));
    const V infinite = V{} + std::numeric_limits<float>::infinity();
    return select(x > V{} + 88.72283f, infinite, select(x < V{} - 87.33654f, V{}, select(x == x, scaled, x)));
  }
}

/// log x, within 2 units in the last place; -infinity at 0, NaN below. For vectors of floats x = m 2^e with m from
/// sqrt(1/2) to sqrt(2), and the polynomial of Cephes' logf in m - 1.
template <class V>
[[gnu::always_inline]] inline V logarithm(V x) {
  if constexpr (!std::is_same_v<simd::Lane<V>, float>) {
    return each(x, [](auto number) { return std::log(number); });
  } else if constexpr (std::is_same_v<V, float>) {
    return logarithm(simd::Vector<float>{} + x)[0];
  } else {
    typedef std::uint32_t Bits __attribute__((vector_size(sizeof(V))));
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const auto tiny = x < V{} + std::numeric_limits<float>::min();  // denormal: made larger first
    const Bits bits = std::bit_cast<Bits>(select(tiny, x * 8388608.0f, x));
    // the first: 2^23 and a whole number
    const Bits exponent = (bits >> 23) | 0x4B000000, fraction = (bits & 0x7FFFFF) | 0x3F000000;
    V e = std::bit_cast<V>(exponent) - 8388734.0f - select(tiny, V{} + 23.0f, V{});
    V m = std::bit_cast<V>(fraction);  // from 1/2 to 1
    const auto low = m < V{} + 0.707106781186547524f;
    e = select(low, e - 1.0f, e);
    m = select(low, m + m, m) - 1.0f;
    const V square = m * m;
    V p = m * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    const V y = m + (p * m * square - e * 2.12194440e-4f - square * 0.5f) + e * 0.693359375f;
    const V below = select(x == V{}, V{} - infinity, V{} + std::numeric_limits<float>::quiet_NaN());
    return select(x > V{}, select(x == V{} + infinity, x, y), select(x == x, below, x));
  }
}

struct Negate {
  template <class V> static V value(V a) { return -a; }
  template <class V> static V derivative(V, V) { return V{} - 1; }
};
struct Square {
  template <class V> static V value(V a) { return a * a; }
  template <class V> static V derivative(V a, V) { return a + a; }
};
/// The derivative at 0 is infinite, as PyTorch's; write sqrt(x + epsilon) where 0 occurs.
struct Sqrt {
  template <class V> static V value(V a) { return square_root(a); }
  template <class V> static V derivative(V, V y) { return (V{} + 1) / (y + y); }
};
/// The derivative at 0 is 0, as PyTorch's.
struct Abs {
  template <class V> static V value(V a) { return select(a < V{}, -a, a); }
  template <class V> static V derivative(V a, V) {
    return select(a > V{}, V{} + 1, select(a < V{}, V{} - 1, V{}));
  }
};
struct Exp {
  template <class V> static V value(V a) { return exponential(a); }
  template <class V> static V derivative(V, V y) { return y; }
};
/// 1 / (1 + e^-x).
struct Sigmoid {
  template <class V> static V value(V a) {
    if constexpr (std::is_same_v<V, float>)
      return value(simd::Vector<float>{} + a)[0];
    else
      return (V{} + 1) / (V{} + 1 + exponential(-a));
  }
  template <class V> static V derivative(V, V y) { return y * (V{} + 1 - y); }
};
struct Tanh {
  template <class V> static V value(V a) {
    if constexpr (!std::is_same_v<simd::Lane<V>, float>) {
      return each(a, [](auto x) { return std::tanh(x); });
    } else if constexpr (std::is_same_v<V, float>) {
      return value(simd::Vector<float>{} + a)[0];
    } else {  // as Cephes' tanhf
      const V size = select(a < V{}, -a, a), square = a * a;
      const V large = V{} + 1 - (V{} + 2) / (exponential(size + size) + 1);  // cancels near 0
      V p = square * -5.70498872745e-3f + 2.06390887954e-2f;
      p = p * square - 5.37397155531e-2f;
      p = p * square + 1.33314422036e-1f;
      p = p * square - 3.33332819422e-1f;
      return select(size < V{} + 0.625f, p * square * a + a, select(a < V{}, -large, large));
    }
  }
  template <class V> static V derivative(V, V y) { return V{} + 1 - y * y; }
};
/// The error function, within 5e-7 for floats: Eigen's rational approximation on [-4, 4].
struct Erf {
  template <class V> static V value(V a) {
    if constexpr (!std::is_same_v<simd::Lane<V>, float>) {
      return each(a, [](auto x) { return std::erf(x); });
    } else if constexpr (std::is_same_v<V, float>) {
      return value(simd::Vector<float>{} + a)[0];
    } else {
      const V x = select(a < V{} - 4, V{} - 4, select(a > V{} + 4, V{} + 4, a)), square = x * x;
      V p = square * -2.72614225801306e-10f + 2.77068142495902e-8f;
      p = p * square - 2.10102402082508e-6f;
      p = p * square - 5.69250639462346e-5f;
      p = p * square - 7.34990630326855e-4f;
      p = p * square - 2.95459980854025e-3f;
      p = p * square - 1.60960333262415e-2f;
      V q = square * -1.45660718464996e-5f - 2.13374055278905e-4f;
      q = q * square - 1.68282697438203e-3f;
      q = q * square - 7.37332916720468e-3f;
      q = q * square - 1.42647390514189e-2f;
      const V y = x * p / q;
      return select(y > V{} + 1, V{} + 1, select(y < V{} - 1, V{} - 1, y));
    }
  }
  template <class V>
  static V derivative(V a, V) {
    return exponential(-(a * a)) * simd::Lane<V>(1.12837916709551257390);
  }
};
struct Log {
  template <class V> static V value(V a) { return logarithm(a); }
  template <class V> static V derivative(V a, V) { return (V{} + 1) / a; }
};
/// Between low and high; the gradient passes inside, the ends included, as in PyTorch.
struct Clamp {
  double low, high;
  template <class V> V value(V a) const {
    const V below = V{} + simd::Lane<V>(low), above = V{} + simd::Lane<V>(high);
    return select(a < below, below, select(a > above, above, a));
  }
  template <class V> V derivative(V a, V) const {
    const V below = V{} + simd::Lane<V>(low), above = V{} + simd::Lane<V>(high);
    return select(a < below, V{}, select(a > above, V{}, V{} + 1));
  }
};

/// x where it is above 0, else slope * x; 0 there where slope is 0. The derivative at 0 is the slope, as PyTorch's.
struct LeakyRelu {
  double slope = 0;
  template <class V> V value(V a) const {
    return select(a < V{}, slope == 0 ? V{} : a * simd::Lane<V>(slope), a);
  }
  template <class V> V derivative(V a, V) const { return select(a > V{}, V{} + 1, V{} + simd::Lane<V>(slope)); }
};
/// a^exponent.
struct Power {
  double exponent = 1;
  template <class V> V value(V a) const {
    return each(a, [this](auto x) { return std::pow(x, decltype(x)(exponent)); });
  }
  template <class V> V derivative(V a, V) const {
    if (exponent == 0) return V{};
    return each(a, [this](auto x) { return decltype(x)(exponent) * std::pow(x, decltype(x)(exponent - 1)); });
  }
};

struct Add {
  template <class V> static V value(V a, V b) { return a + b; }
  template <class V> static void backward(V, V, V, V gy, V& ga, V& gb) { ga = gy, gb = gy; }
};
struct Subtract {
  template <class V> static V value(V a, V b) { return a - b; }
  template <class V> static void backward(V, V, V, V gy, V& ga, V& gb) { ga = gy, gb = -gy; }
};
struct Multiply {
  template <class V> static V value(V a, V b) { return a * b; }
  template <class V> static void backward(V a, V b, V, V gy, V& ga, V& gb) { ga = gy * b, gb = gy * a; }
};
struct Divide {
  template <class V> static V value(V a, V b) { return a / b; }
  template <class V> static void backward(V, V b, V y, V gy, V& ga, V& gb) { ga = gy / b, gb = -ga * y; }
};
/// The larger; where both are equal each gets half of the gradient, as in PyTorch. NaN where either is NaN.
struct Maximum {
  template <class V> static V value(V a, V b) { return select((a > b) | (a != a), a, b); }
  template <class V> static void backward(V a, V b, V, V gy, V& ga, V& gb) { share(a > b, a < b, gy, ga, gb); }
  template <class M, class V> static void share(M first, M second, V gy, V& ga, V& gb) {
    const V half = gy / (V{} + 2);
    ga = select(first, gy, select(second, V{}, half));
    gb = select(second, gy, select(first, V{}, half));
  }
};
struct Minimum {
  template <class V> static V value(V a, V b) { return select((a < b) | (a != a), a, b); }
  template <class V> static void backward(V a, V b, V, V gy, V& ga, V& gb) { Maximum::share(a < b, a > b, gy, ga, gb); }
};

}}}  // namespace strata::STRATA_ABI::math
