// Vectors as wide as the processor's registers, over the vector extensions that GCC and clang share: 16 floats with
// AVX-512, 8 with AVX2, 4 otherwise. Arithmetic is written with the plain operators, and `sum += a * b` becomes one
// fused multiply-add where the processor has it.
//
//     using V = st::simd::Vector<float>;
//     V sum = st::simd::broadcast<V>(0.0f);
//     for (int i = 0; i < n; i += st::simd::lanes<V>) sum += st::simd::load<V>(a + i) * st::simd::load<V>(b + i);
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/core/config.hpp"

// For lambdas whose variables are to stay in registers: [&](auto i) STRATA_INLINED { ... }. Before C++23 an attribute
// in square brackets cannot stand there.
#define STRATA_INLINED __attribute__((always_inline))

namespace strata { inline namespace STRATA_ABI { namespace simd {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
inline constexpr int register_bytes = 64;
inline constexpr int registers = 32;
#elif defined(__AVX2__) && defined(__FMA__)
inline constexpr int register_bytes = 32;
inline constexpr int registers = 16;
#else
inline constexpr int register_bytes = 16;
inline constexpr int registers = 16;
#endif

namespace detail {
template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(register_bytes)));  // an alias declaration loses the attribute in g++
};
}  // namespace detail

/// One register full of T.
template <class T>
using Vector = typename detail::VectorOf<T>::type;

namespace detail {
template <class V>
struct LaneOf {
  using type = std::remove_cvref_t<decltype(std::declval<V&>()[0])>;
};
template <class V>
  requires std::is_arithmetic_v<V>
struct LaneOf<V> {
  using type = V;
};
}  // namespace detail

/// The type of one element of a vector, and how many there are. A single number counts as a vector of one, so that the
/// same code serves the elements left over at the end of a row.
template <class V>
using Lane = typename detail::LaneOf<V>::type;
template <class V>
inline constexpr int lanes = int(sizeof(V) / sizeof(Lane<V>));

/// The vector at `from`, which needs no alignment.
template <class V>
[[gnu::always_inline]] inline V load(const Lane<V>* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof(V));
  return value;
}

/// The numbers at `from`, floats, as V: a vector of doubles, or double.
template <class V>
[[gnu::always_inline]] inline V widened(const float* from) {
  if constexpr (lanes<V> == 1) {
    return V(*from);
  } else {
    typedef float Half __attribute__((vector_size(sizeof(V) / 2)));
    Half value;
    __builtin_memcpy(&value, from, sizeof value);
    return __builtin_convertvector(value, V);
  }
}

template <class V>
[[gnu::always_inline]] inline void store(Lane<V>* to, V value) {
  __builtin_memcpy(to, &value, sizeof(V));
}

/// Writes to memory without a place in the caches, and without reading what was there first. `to` is a multiple of the
/// vector's size. Other threads see it after finish_streaming().
template <class V>
[[gnu::always_inline]] inline void stream(Lane<V>* to, V value) {
#if defined(__clang__)
  __builtin_nontemporal_store(value, reinterpret_cast<V*>(to));
#elif defined(__AVX__)
  asm("vmovntps %1, %0" : "=m"(*reinterpret_cast<char(*)[sizeof(V)]>(to)) : "v"(value));
#elif defined(__SSE2__)
  asm("movntps %1, %0" : "=m"(*reinterpret_cast<char(*)[sizeof(V)]>(to)) : "x"(value));
#else
  store<V>(to, value);
#endif
}
inline void finish_streaming() {
#if defined(__SSE2__)
  asm volatile("sfence" ::: "memory");
#endif
}

/// The first `count` (0 to lanes) elements at `from`, zeros after them. Nothing beyond them is read.
template <class V>
inline V load_first(const Lane<V>* from, std::int64_t count) {
  V value{};
  for (int i = 0; i < count; ++i) value[i] = from[i];
  return value;
}

/// Writes the first `count` (0 to lanes) elements, and nothing beyond them.
template <class V>
inline void store_first(Lane<V>* to, V value, std::int64_t count) {
  for (int i = 0; i < count; ++i) to[i] = value[i];
}

/// Calls f.template operator()<V>(i) for all i below `count`: whole vectors first, then single numbers.
template <class T, class Index, class F>
[[gnu::always_inline]] inline void over_vectors(Index count, F&& f) {
  using V = Vector<T>;
  Index i = 0;
  for (; i + lanes<V> <= count; i += lanes<V>) f.template operator()<V>(i);
  for (; i < count; ++i) f.template operator()<T>(i);
}

template <class V>
[[gnu::always_inline]] inline V broadcast(Lane<V> value) {
  return value - V{};  // x - 0 is x for every x, so that only the broadcast is left of this
}

/// a * b + c, rounded once where the processor has a fused multiply-add.
template <class V>
[[gnu::always_inline]] inline V multiply_add(V a, V b, V c) {
  return a * b + c;
}

/// The larger element of each pair; b where either is not a number.
template <class V>
[[gnu::always_inline]] inline V max(V a, V b) {
  return a > b ? a : b;
}

#ifndef __CUDACC__  // nvcc 13.0 loses the dots behind a pack in __builtin_shufflevector; its units need no shuffles
/// The sum of all elements, in a fixed order: halves are added until one element is left.
template <class V>
[[gnu::always_inline]] inline Lane<V> sum(V value) {
  const auto add_exchanged =
      [&]<int Distance, int... I>(std::integral_constant<int, Distance>, std::integer_sequence<int, I...>)
          STRATA_INLINED { value += __builtin_shufflevector(value, value, (I ^ Distance)...); };
  constexpr auto all = std::make_integer_sequence<int, lanes<V>>{};
  if constexpr (lanes<V> >= 16) add_exchanged(std::integral_constant<int, 8>{}, all);
  if constexpr (lanes<V> >= 8) add_exchanged(std::integral_constant<int, 4>{}, all);
  if constexpr (lanes<V> >= 4) add_exchanged(std::integral_constant<int, 2>{}, all);
  add_exchanged(std::integral_constant<int, 1>{}, all);
  return value[0];
}

/// a0 a1 ... b0 b1 ... without every second element: even_elements gives a0 a2 ..., odd_elements a1 a3 ...
template <class V>
[[gnu::always_inline]] inline V even_elements(V a, V b) {
  return [&]<int... I>(std::integer_sequence<int, I...>)
      STRATA_INLINED { return __builtin_shufflevector(a, b, (2 * I)...); }(std::make_integer_sequence<int, lanes<V>>{});
}
template <class V>
[[gnu::always_inline]] inline V odd_elements(V a, V b) {
  return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
    return __builtin_shufflevector(a, b, (2 * I + 1)...);
  }(std::make_integer_sequence<int, lanes<V>>{});
}

/// a0 b0 a1 b1 ... in two vectors.
template <class V>
[[gnu::always_inline]] inline std::pair<V, V> interleaved(V a, V b) {
  constexpr int half = lanes<V> / 2;
  return [&]<int... I>(std::integer_sequence<int, I...>) STRATA_INLINED {
    return std::pair<V, V>(__builtin_shufflevector(a, b, (I / 2 + I % 2 * lanes<V>)...),
                           __builtin_shufflevector(a, b, (half + I / 2 + I % 2 * lanes<V>)...));
  }(std::make_integer_sequence<int, lanes<V>>{});
}
#endif

/// f(0), f(1), ... f(Count - 1) with compile-time indices. Arrays indexed by them can live in registers, which a loop
/// gets from the optimiser only at -O3. Mark f with STRATA_INLINED.
template <int Count, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>)
      STRATA_INLINED { (f(std::integral_constant<int, I>{}), ...); }(std::make_integer_sequence<int, Count>{});
}

/// `count` rounded up to whole vectors.
template <class V>
constexpr std::int64_t padded(std::int64_t count) {
  return (count + lanes<V> - 1) / lanes<V> * lanes<V>;
}

}}}  // namespace strata::STRATA_ABI::simd
