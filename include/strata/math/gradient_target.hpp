// Where a gradient goes: a step of the tape, a kernel or an accelerator writes it there. The first to come assigns,
// later ones add, so nothing is cleared beforehand.
//
//     const auto dx = tape.target<T>(x.id());                  // of a value
//     const auto dw = detail::gradient_target<T>(weight);      // of a parameter; empty where it wants none
//     if (dx) cpu::conv2d_backward_input(problem, dy, weight, dx.data, dx.accumulate);
#pragma once

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

template <class T = float>
struct GradientTarget {
  T* data = nullptr;
  bool accumulate = false;  ///< add to what is there, else assign
  explicit operator bool() const { return data != nullptr; }
};

}  // namespace strata::inline STRATA_ABI
