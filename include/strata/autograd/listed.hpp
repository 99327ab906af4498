// Whether a module's visit() lists each of its members once: found by the compiler for an aggregate whose visit() is
// constexpr, and when the list runs for all others (visit.hpp calls both).
//
// When it runs, the bytes of the object that no listed member covers are searched for the mark of a parameter or a
// buffer (anchor.hpp). That finds members of classes with constructors, private ones and those of bases. It finds
// nothing behind a pointer or in a std::vector that such a class does not list.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "strata/autograd/anchor.hpp"
#include "strata/autograd/fields.hpp"
#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// What visit() calls a member: text, or a number.
struct PartName {
  std::string_view text;
  long long number = -1;

  constexpr PartName() = default;
  template <class Name>
  constexpr explicit PartName(const Name& name) {
    if constexpr (std::is_integral_v<Name>)
      number = static_cast<long long>(name);
    else
      text = name;
  }
  friend constexpr bool operator==(const PartName&, const PartName&) = default;
  std::string str() const { return number >= 0 ? std::to_string(number) : std::string(text); }
};

/// The members that visit() lists and that hold parameters or buffers.
struct ListedParts {
  static constexpr std::size_t most = 96;  // more are not compared
  struct Part {
    const void* place = nullptr;
    std::size_t bytes = 0;
    PartName name;
  };
  std::array<Part, most> parts{};
  std::size_t count = 0;

  template <class T>
  constexpr void add(const auto& name, const T& part) {
    if (count < most) parts[count] = {std::addressof(part), sizeof(T), PartName(name)};
    ++count;
  }
  constexpr bool complete() const { return count <= most; }

  /// Two parts of one name, or -1.
  constexpr int same_name() const {
    for (std::size_t i = 0; i < count; ++i)
      for (std::size_t j = 0; j < i; ++j)
        if (parts[i].name == parts[j].name) return int(i);
    return -1;
  }
};

// ---- by the compiler

/// What is wrong with a list: the number of a member, counted from 0, or -1.
struct ListFault {
  int missing = -1, twice = -1;
  bool same_name = false;
  bool unclear = false;  ///< it names what is inside members: to be compared when it runs
};

/// Compares the list with the members' places. State<Field> tells which members count.
template <template <class> class State>
struct CompareWithFields {
  const ListedParts& listed;

  template <class... Fields>
  constexpr ListFault operator()(const Fields&... fields) const {
    constexpr std::size_t fields_count = sizeof...(Fields);
    const std::array<const void*, fields_count + 1> places{static_cast<const void*>(std::addressof(fields))...,
                                                           nullptr};
    constexpr std::array<std::size_t, fields_count + 1> bytes{
        (State<std::remove_cv_t<Fields>>::value ? sizeof(Fields) : 0)..., 0};
    ListFault fault;
    std::size_t unlisted = 0, matched = 0, all = 0;
    for (std::size_t field = 0; field < fields_count; ++field) {
      if (bytes[field] == 0) continue;
      int times = 0;
      for (std::size_t i = 0; i < listed.count; ++i)
        if (listed.parts[i].place == places[field] && listed.parts[i].bytes == bytes[field]) ++times;
      matched += std::size_t(times) * bytes[field];
      if (times == 0) unlisted += bytes[field];
      if (times == 0 && fault.missing < 0) fault.missing = int(field);
      if (times > 1 && fault.twice < 0) fault.twice = int(field);
    }
    for (std::size_t i = 0; i < listed.count; ++i) all += listed.parts[i].bytes;
    // A list may name what is inside a member instead of the member: then the sizes tell.
    if (all - matched == unlisted) fault.missing = -1;
    fault.unclear = all != matched && fault.missing < 0 && fault.twice < 0;
    fault.same_name = listed.same_name() >= 0;
    return fault;
  }
};

/// An object that is never made: the addresses of its members are formed, at compile time only.
template <class T>
union NeverMade {
  char nothing = 0;
  T object;
  constexpr NeverMade() {}
  constexpr ~NeverMade() {}
};
#if defined(__clang__)
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wundefined-var-template"
#endif
template <class T>
struct Somewhere {
  static NeverMade<T> place;  // never defined: only its address is used, so that nothing is left to be done at start-up
};

template <template <class> class State>
struct AddToList {
  ListedParts& list;
  template <class Part>
  constexpr void operator()(const auto& name, Part& part) const {
    if constexpr (State<std::remove_cv_t<Part>>::value) list.add(name, part);
  }
};

template <class M, template <class> class State>
constexpr ListFault list_fault() {
  ListedParts listed;
  M::visit(Somewhere<M>::place.object, AddToList<State>{listed});
  if (!listed.complete()) return {.unclear = true};
  return with_fields(Somewhere<M>::place.object, CompareWithFields<State>{listed});
}
#if defined(__clang__)
#pragma clang diagnostic pop
#endif
template <class M, template <class> class State>
concept list_is_constexpr = requires { typename std::bool_constant<list_fault<M, State>().same_name>; };

/// Whether the members can be told. The library's own modules vouch for theirs.
template <class M>
constexpr bool members_comparable() {
  if constexpr (
      requires { M::has_state; } || requires { M::is_leaf_layer; })
    return false;
  else
    return !std::is_same_v<fields_of<M>, Unknown>;
}
/// Whether the compiler compares M's list.
template <class M, template <class> class State>
constexpr bool compared_by_compiler() {
  if constexpr (!members_comparable<M>())
    return false;
  else if constexpr (list_is_constexpr<M, State>)
    return !list_fault<M, State>().unclear;
  else
    return false;
}

template <int Index, class T>
struct FieldAt;
template <int Index, class First, class... Rest>
struct FieldAt<Index, Types<First, Rest...>> : FieldAt<Index - 1, Types<Rest...>> {};
template <class First, class... Rest>
struct FieldAt<0, Types<First, Rest...>> {
  using type = First;
};

// Read the template arguments in the compiler's text: the module, the number of the member, counted from 0, and its
// type.
template <class Module, int Number, class Member>
struct member_not_listed {
  static_assert(
      Number < 0,
      "strata: visit() does not list every member that holds parameters: a forgotten one would never be trained or "
      "saved; add f(\"name\", self.name) for it (read member_not_listed<Module, Number, Member> beside this "
      "message: Number counts the members from 0)");
};
template <class Module, int Number, class Member>
struct member_listed_twice {
  static_assert(
      Number < 0,
      "strata: visit() lists a member twice, which would be trained twice in a step and saved under two names (read "
      "member_listed_twice<Module, Number, Member> beside this message: Number counts the members from 0)");
};
template <class Module, bool SameName>
struct members_of_one_name {
  static_assert(!SameName,
                "strata: visit() gives two members one name: a file could hold only one of them (read "
                "members_of_one_name<Module, true> beside this message)");
};

/// What there is to say of a module's list; made the base of a class, since then clang says it once.
template <class M, template <class> class State>
constexpr auto list_error() {
  if constexpr (compared_by_compiler<M, State>()) {
    constexpr ListFault fault = list_fault<M, State>();
    if constexpr (fault.missing >= 0)
      return std::type_identity<
          member_not_listed<M, fault.missing, typename FieldAt<fault.missing, fields_of<M>>::type>>();
    else if constexpr (fault.twice >= 0)
      return std::type_identity<
          member_listed_twice<M, fault.twice, typename FieldAt<fault.twice, fields_of<M>>::type>>();
    else
      return std::type_identity<members_of_one_name<M, fault.same_name>>();
  } else {
    return std::type_identity<Unknown>();
  }
}

// ---- when the list runs

/// The name of a type as the compiler writes it.
template <class T>
std::string_view type_text() {
  const std::string_view text = __PRETTY_FUNCTION__;
  const std::size_t begin = text.find("T = ") + 4;
  return text.substr(begin, text.find_first_of(";]", begin) - begin);
}

/// Throws Error when something is wrong with the list of the module of `bytes` bytes at `object`.
[[gnu::no_sanitize_address, gnu::noinline]]  // it reads what lies between members
inline void
check_listed(const ListedParts& listed, const void* object, std::size_t bytes, std::string_view type) {
  if (!listed.complete()) return;
  const auto begin = reinterpret_cast<std::uintptr_t>(object), end = begin + bytes;
  const auto place = [](const ListedParts::Part& part) { return reinterpret_cast<std::uintptr_t>(part.place); };
  const auto covers = [&](const ListedParts::Part& part, std::uintptr_t at) {
    return at >= place(part) && at < place(part) + part.bytes;
  };
  for (std::size_t i = 0; i < listed.count; ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const ListedParts::Part &one = listed.parts[j], &other = listed.parts[i];
      if (covers(one, place(other)) || covers(other, place(one)))
        throw Error(
            concat("visit() of ", type, " lists one member twice, as '", one.name.str(), "' and as '", other.name.str(),
                   "': it would be trained twice in a step and saved under two names; most likely another was meant"));
      if (one.name == other.name)
        throw Error(concat("visit() of ", type, " gives two members the name '", one.name.str(),
                           "': a file could hold only one of them"));
    }
  constexpr std::uintptr_t step = alignof(std::uint64_t);
  const ListedParts::Part* before = nullptr;  // the last one passed
  for (std::uintptr_t at = (begin + step - 1) / step * step; at + sizeof(std::uint64_t) <= end; at += step) {
    bool covered = false;
    for (std::size_t i = 0; i < listed.count && !covered; ++i)
      if (covers(listed.parts[i], at)) {
        before = &listed.parts[i];
        at = (place(*before) + before->bytes - 1) / step * step;  // its last word; the loop goes on behind it
        covered = true;
      }
    if (covered) continue;
    std::uint64_t word = 0;
    std::memcpy(&word, reinterpret_cast<const void*>(at), sizeof word);
    if (word == Anchored::mark)
      throw Error(
          concat("visit() of ", type, " does not list every member that holds parameters: one lies ",
                 before == nullptr ? std::string("before all that are listed") : "behind '" + before->name.str() + "'",
                 " (at byte ", at - begin, " of ", bytes,
                 "); it would never be trained or saved: add f(\"name\", self.name) for it"));
  }
}

}}}  // namespace strata::STRATA_ABI::detail
