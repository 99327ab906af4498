// The data members of an aggregate, so that the compiler can tell when a module's list forgets one.
//
//     struct Pair { st::Parameter a; float b; };
//     fields_of<Pair>                             // Types<st::Parameter, float>
//     with_fields(pair, f)                        // f(pair.a, pair.b)
//
// It works for what has at most 32 members, all of them public and its own, and no constructor. Bases may have no
// members.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A list of types.
template <class... Ts>
struct Types {};

/// The empty base of the library's modules; see nn/module.hpp.
struct LayerTag {};
template <class Self>
struct LayerOf : LayerTag {};

namespace detail {

// Whether T takes so many {}, one for each base and member, since every default-constructible member accepts it, and
// More behind them: Anything finds a member that does not accept {}.
struct Anything {
  template <class U>
  operator U&() const;
  template <class U>
  operator U&&() const;
};
template <int N, class T, class... More>
inline constexpr bool braces = false;
template <class T, class... More>
inline constexpr bool braces<0, T, More...> = requires { T{More()...}; };
template <class T, class... More>
inline constexpr bool braces<1, T, More...> = requires { T{{}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<2, T, More...> = requires { T{{}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<3, T, More...> = requires { T{{}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<4, T, More...> = requires { T{{}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<5, T, More...> = requires { T{{}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<6, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<7, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<8, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<9, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<10, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<11, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<12, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    More()...}; };
template <class T, class... More>
inline constexpr bool braces<13, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    More()...}; };
template <class T, class... More>
inline constexpr bool braces<14, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    More()...}; };
template <class T, class... More>
inline constexpr bool braces<15, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<16, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<17, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<18, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<19, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<20, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<21, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<22, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<23, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<24, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<25, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<26, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<27, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<28, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<29, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<30, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<31, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<32, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };
template <class T, class... More>
inline constexpr bool braces<33, T, More...> = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {},
    {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, More()...}; };

inline constexpr int max_fields = 32;

template <class T, int N>
constexpr int brace_count_from() {
  if constexpr (braces<N, T>)
    return braces<N, T, Anything> ? -1 : N;
  else if constexpr (N > 0)
    return brace_count_from<T, N - 1>();
  else
    return -1;
}

/// How many braced initialisers T takes, bases included: 0 to max_fields, or -1 when that cannot be told.
template <class T>
constexpr int brace_count() {
  if constexpr (!std::is_aggregate_v<T>)
    return -1;
  else if constexpr (!braces<4, T>)
    return brace_count_from<T, 3>();
  else if constexpr (!braces<8, T>)
    return brace_count_from<T, 7>();
  else if constexpr (!braces<16, T>)
    return brace_count_from<T, 15>();
  else if constexpr (!braces<max_fields + 1, T>)
    return brace_count_from<T, max_fields>();
  else
    return -1;
}

/// Becomes a base of T, one without members where Empty says so, and nothing else.
template <class T, bool Empty>
struct BaseOf {
  template <class U>
    requires(std::is_base_of_v<U, T> && !std::is_same_v<U, T> && (!Empty || std::is_empty_v<U>))
  operator U() const;
};
template <class T>
constexpr int empty_bases() {
  using Base = BaseOf<T, true>;
  if constexpr (requires { T{Base(), Base()}; })
    return 2;
  else
    return requires { T{Base()}; } ? 1 : 0;
}
/// Whether members of T's bases are in the way.
template <class T>
constexpr bool inherits_members() {
  using Any = BaseOf<T, false>;
  if constexpr (requires { T{Any(), Any(), Any()}; })
    return true;
  else if constexpr (requires { T{Any(), Any()}; })
    return empty_bases<T>() < 2;
  else if constexpr (requires { T{Any()}; })
    return empty_bases<T>() < 1;
  else
    return false;
}

/// The number of data members, or -1.
template <class T>
constexpr int field_count() {
  constexpr int count = brace_count<T>();
  if constexpr (count <= 0)
    return count;
  else if constexpr (inherits_members<T>())
    return -1;
  else
    return count - empty_bases<T>();
}

struct Unknown {};

/// f(members...), or Unknown.
template <class T, class F>
constexpr auto with_fields(T& t, F f) {
  constexpr int count = field_count<T>();
  if constexpr (count == 0) {
    return f();
  } else if constexpr (count == 1) {
    auto& [a0] = t;
    return f(a0);
  } else if constexpr (count == 2) {
    auto& [a0, a1] = t;
    return f(a0, a1);
  } else if constexpr (count == 3) {
    auto& [a0, a1, a2] = t;
    return f(a0, a1, a2);
  } else if constexpr (count == 4) {
    auto& [a0, a1, a2, a3] = t;
    return f(a0, a1, a2, a3);
  } else if constexpr (count == 5) {
    auto& [a0, a1, a2, a3, a4] = t;
    return f(a0, a1, a2, a3, a4);
  } else if constexpr (count == 6) {
    auto& [a0, a1, a2, a3, a4, a5] = t;
    return f(a0, a1, a2, a3, a4, a5);
  } else if constexpr (count == 7) {
    auto& [a0, a1, a2, a3, a4, a5, a6] = t;
    return f(a0, a1, a2, a3, a4, a5, a6);
  } else if constexpr (count == 8) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7);
  } else if constexpr (count == 9) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8);
  } else if constexpr (count == 10) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9);
  } else if constexpr (count == 11) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10);
  } else if constexpr (count == 12) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11);
  } else if constexpr (count == 13) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12);
  } else if constexpr (count == 14) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13);
  } else if constexpr (count == 15) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14);
  } else if constexpr (count == 16) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15);
  } else if constexpr (count == 17) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16);
  } else if constexpr (count == 18) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17);
  } else if constexpr (count == 19) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18);
  } else if constexpr (count == 20) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19);
  } else if constexpr (count == 21) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20);
  } else if constexpr (count == 22) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21);
  } else if constexpr (count == 23) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21,
          a22] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22);
  } else if constexpr (count == 24) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23);
  } else if constexpr (count == 25) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24);
  } else if constexpr (count == 26) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25);
  } else if constexpr (count == 27) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26);
  } else if constexpr (count == 28) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26, a27] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26, a27);
  } else if constexpr (count == 29) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26, a27, a28] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26, a27, a28);
  } else if constexpr (count == 30) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26, a27, a28, a29] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26, a27, a28, a29);
  } else if constexpr (count == 31) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26, a27, a28, a29, a30] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26, a27, a28, a29, a30);
  } else if constexpr (count == 32) {
    auto& [a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
          a23, a24, a25, a26, a27, a28, a29, a30, a31] = t;
    return f(a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, a17, a18, a19, a20, a21, a22,
             a23, a24, a25, a26, a27, a28, a29, a30, a31);
  } else {
    return Unknown{};
  }
}

struct FieldTypes {
  template <class... Fields>
  constexpr auto operator()(const Fields&...) const {
    return Types<Fields...>{};
  }
};
template <class T>
using fields_of = decltype(with_fields(std::declval<T&>(), FieldTypes()));

}  // namespace detail
}}  // namespace strata::STRATA_ABI
