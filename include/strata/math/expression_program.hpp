// An elementwise expression as data: a program in postfix order, so that a device evaluates any expression with one
// kernel.
//
//     st::ExpressionProgram program;                         // (a - b)^2
//     program.push_leaf(a), program.push_leaf(b);
//     program.push(st::Operation::subtract);
//     program.push(st::Operation::square);
//
// Operations and derivatives are those of math/functions.hpp.
#pragma once

#include <cstdint>

#include "strata/core/config.hpp"
#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI {

/// leaf and constant push a value, the next twelve replace the topmost, the last six take two (the right one on top).
enum class Operation : std::uint8_t {
  leaf, constant,
  negate, square, sqrt, abs, exp, log, sigmoid, tanh, erf, clamp, leaky_relu, power,
  add, subtract, multiply, divide, maximum, minimum
};

constexpr int operand_count(Operation operation) {
  return operation < Operation::negate ? 0 : operation < Operation::add ? 1 : 2;
}

class ExpressionProgram {
 public:
  static constexpr int max_length = 48, max_leaves = 8, max_depth = 16;

  struct Instruction {
    Operation operation;
    std::uint8_t leaf;  ///< of a leaf: its number
    /// of an operation on two: the instruction whose value is the left one; the right one is the last
    std::uint8_t left;
    float a, b;         ///< of a constant: its value; of clamp: low and high; of leaky_relu and power: slope, exponent
  };

  /// Pushes an array. Arrays pushed before are known by their address and share a number. Throws Error when a program
  /// gets longer than max_length, deeper than max_depth or has more than max_leaves arrays; returns the leaf's number.
  constexpr int push_leaf(const float* data) {
    int leaf = 0;
    while (leaf < leaves_ && leaf_[leaf] != data) ++leaf;
    if (leaf == max_leaves) throw Error(concat("expression: more than ", max_leaves, " different images in one"));
    leaf_[leaf] = data;
    if (leaf == leaves_) ++leaves_;
    append({Operation::leaf, std::uint8_t(leaf), 0, 0, 0});
    return leaf;
  }
  constexpr void push_constant(float value) { append({Operation::constant, 0, 0, value, 0}); }
  constexpr void push_clamp(float low, float high) { append({Operation::clamp, 0, 0, low, high}); }
  /// leaky_relu with its slope, or power with its exponent.
  constexpr void push(Operation operation, float number) { append({operation, 0, 0, number, 0}); }
  constexpr void push(Operation operation) { append({operation, 0, 0, 0, 0}); }

  constexpr int length() const { return length_; }
  constexpr int leaves() const { return leaves_; }
  /// The most values that are on the stack at once.
  constexpr int depth() const { return deepest_; }
  /// Whether it leaves exactly one value.
  constexpr bool complete() const { return depth_ == 1; }
  constexpr const Instruction& operator[](int index) const { return instruction_[index]; }
  constexpr const float* leaf(int number) const { return leaf_[number]; }

 private:
  constexpr void append(Instruction instruction) {
    const int wanted = operand_count(instruction.operation);
    if (depth_ < wanted) throw Error("expression: an operation without operands");
    if (length_ == max_length) throw Error(concat("expression: more than ", max_length, " operations in one"));
    depth_ += 1 - wanted;
    if (depth_ > max_depth) throw Error(concat("expression: nested deeper than ", max_depth));
    deepest_ = depth_ > deepest_ ? depth_ : deepest_;
    if (wanted == 2) instruction.left = top_[depth_ - 1];
    top_[depth_ - 1] = std::uint8_t(length_);
    instruction_[length_++] = instruction;
  }

  Instruction instruction_[max_length]{};
  std::uint8_t top_[max_depth]{};  // the instructions whose values are on the stack
  const float* leaf_[max_leaves]{};
  int length_ = 0, leaves_ = 0, depth_ = 0, deepest_ = 0;
};

}}  // namespace strata::STRATA_ABI
