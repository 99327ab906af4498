// An object that exists at run time only, so that a class that holds it can be made while the compiler runs a program:
// a network's facts are found that way, from a network that takes no memory (nn/follow.hpp).
//
//     class Weights { AtRunTime<Cache> cache_; ... cache_->find(key) ... };
//
// While the compiler runs it there is a Plan in place of the T, in memory that must be given back before the evaluation
// ends. So nothing that outlives one is ever made by the compiler: a network with static storage is made when the
// program starts.
#pragma once

#include <new>
#include <type_traits>
#include <utility>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

/// What stands in a T's place unless something is to be remembered of it.
struct NoPlan {};

template <class T, class Plan = NoPlan>
class AtRunTime {
 public:
  constexpr AtRunTime() : AtRunTime(Plan(), [] { return T(); }) {}
  /// Holds make() at run time, `plan` before.
  template <class Make>
  constexpr AtRunTime(const Plan& plan, Make&& make) {
    if (std::is_constant_evaluated())
      plan_ = new Plan(plan);
    else
      ::new (static_cast<void*>(place_)) T(make());
  }
  constexpr AtRunTime(const AtRunTime& other) {
    if (std::is_constant_evaluated())
      plan_ = new Plan(*other.plan_);
    else
      ::new (static_cast<void*>(place_)) T(*other);
  }
  constexpr AtRunTime(AtRunTime&& other) noexcept {
    if (std::is_constant_evaluated())
      plan_ = new Plan(*other.plan_);
    else
      ::new (static_cast<void*>(place_)) T(std::move(*other));
  }
  constexpr AtRunTime& operator=(const AtRunTime& other) {
    if (std::is_constant_evaluated())
      *plan_ = *other.plan_;
    else
      **this = *other;
    return *this;
  }
  constexpr AtRunTime& operator=(AtRunTime&& other) noexcept {
    if (std::is_constant_evaluated())
      *plan_ = *other.plan_;
    else
      **this = std::move(*other);
    return *this;
  }
  constexpr ~AtRunTime() {
    if (std::is_constant_evaluated())
      delete plan_;
    else
      (**this).~T();
  }

  T& operator*() { return *std::launder(reinterpret_cast<T*>(place_)); }
  const T& operator*() const { return *std::launder(reinterpret_cast<const T*>(place_)); }
  T* operator->() { return &**this; }
  const T* operator->() const { return &**this; }

  /// While the compiler runs the program.
  constexpr const Plan& plan() const { return *plan_; }

 private:
  Plan* plan_ = nullptr;
  // of bytes, not of a T: clang 16 asks for destructors that the compiler can run; and the compiler is spared the bytes
  union {
    char nothing_ = 0;
    alignas(T) unsigned char place_[sizeof(T)];
  };
};

}}  // namespace strata::STRATA_ABI
