// The data members of an aggregate, by type, so that the compiler can tell when a module's list forgets one.
//
//     struct Pair { st::Parameter a; float b; };
//     fields_of<Pair>      // Types<st::Parameter, float>
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// A list of types.
template <class... Ts>
struct Types {};

/// The empty base of the library's modules; see nn/module.hpp.
struct LayerTag {};

namespace detail {

// One {} for each base and member: every default-constructible member accepts it.
template <class T> concept braces_0 = requires { T{}; };
template <class T> concept braces_1 = requires { T{{}}; };
template <class T> concept braces_2 = requires { T{{}, {}}; };
template <class T> concept braces_3 = requires { T{{}, {}, {}}; };
template <class T> concept braces_4 = requires { T{{}, {}, {}, {}}; };
template <class T> concept braces_5 = requires { T{{}, {}, {}, {}, {}}; };
template <class T> concept braces_6 = requires { T{{}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_7 = requires { T{{}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_8 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_9 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_10 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_11 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_12 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}}; };
template <class T> concept braces_13 = requires { T{{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}}; };

/// How many braced initialisers T takes, bases included: 0 to 12, or -1 when that cannot be told.
template <class T>
constexpr int brace_count() {
  if constexpr (!std::is_aggregate_v<T> || braces_13<T>) return -1;
  else if constexpr (braces_12<T>) return 12;
  else if constexpr (braces_11<T>) return 11;
  else if constexpr (braces_10<T>) return 10;
  else if constexpr (braces_9<T>) return 9;
  else if constexpr (braces_8<T>) return 8;
  else if constexpr (braces_7<T>) return 7;
  else if constexpr (braces_6<T>) return 6;
  else if constexpr (braces_5<T>) return 5;
  else if constexpr (braces_4<T>) return 4;
  else if constexpr (braces_3<T>) return 3;
  else if constexpr (braces_2<T>) return 2;
  else if constexpr (braces_1<T>) return 1;
  else return braces_0<T> ? 0 : -1;
}

/// The number of data members, or -1. A base takes one initialiser too; only the library's empty base is understood.
template <class T>
constexpr int field_count() {
  constexpr int count = brace_count<T>();
  if constexpr (count > 0 && std::is_base_of_v<LayerTag, T>)
    return count - 1;
  else
    return count;
}

struct Unknown {};

template <class T>
auto field_types(T& t) {
  constexpr int count = field_count<T>();
  if constexpr (count == 0) { return Types<>{}; }
  else if constexpr (count == 1) { auto& [a] = t; return Types<decltype(a)>{}; }
  else if constexpr (count == 2) { auto& [a, b] = t; return Types<decltype(a), decltype(b)>{}; }
  else if constexpr (count == 3) { auto& [a, b, c] = t; return Types<decltype(a), decltype(b), decltype(c)>{}; }
  else if constexpr (count == 4) {
    auto& [a, b, c, d] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d)>{};
  } else if constexpr (count == 5) {
    auto& [a, b, c, d, e] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e)>{};
  } else if constexpr (count == 6) {
    auto& [a, b, c, d, e, f] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f)>{};
  } else if constexpr (count == 7) {
    auto& [a, b, c, d, e, f, g] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g)>{};
  } else if constexpr (count == 8) {
    auto& [a, b, c, d, e, f, g, h] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g),
                 decltype(h)>{};
  } else if constexpr (count == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g),
                 decltype(h), decltype(i)>{};
  } else if constexpr (count == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g),
                 decltype(h), decltype(i), decltype(j)>{};
  } else if constexpr (count == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g),
                 decltype(h), decltype(i), decltype(j), decltype(k)>{};
  } else if constexpr (count == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = t;
    return Types<decltype(a), decltype(b), decltype(c), decltype(d), decltype(e), decltype(f), decltype(g),
                 decltype(h), decltype(i), decltype(j), decltype(k), decltype(l)>{};
  } else {
    return Unknown{};
  }
}

template <class T>
using fields_of = decltype(field_types(std::declval<T&>()));

}  // namespace detail
}  // namespace strata::inline STRATA_ABI
