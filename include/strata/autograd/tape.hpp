// What a training pass records: for each computed value a step back, run in reverse order by backward().
//
//     tape.record(y.id, [=](st::Tape& tape) { ...adds to the gradients of the inputs... });
//
// Values are named by numbers. A gradient is made when the first contribution arrives (which assigns, so nothing is
// cleared beforehand) and goes back to the pool when the step that consumed it has run, together with what that step kept
// from the forward pass. A tape's own memory is used again by the next one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI {

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { clear(); }

  /// Names a new value of `bytes` bytes.
  int add_value(std::size_t bytes) {
    values_.push_back({Storage(), bytes});
    return int(values_.size()) - 1;
  }

  /// Records the step that made value `output`. `step` is called as step(Tape&) when `output` has got a gradient.
  template <class Step>
  void record(int output, Step step) {
    static_assert(alignof(Step) <= 64);
    void* place = take(sizeof(Step));
    steps_.push_back({new (place) Step(std::move(step)), output,
                      [](void* held, Tape& tape) { (*static_cast<Step*>(held))(tape); },
                      [](void* held) { static_cast<Step*>(held)->~Step(); }});
  }

  /// Where a step writes the gradient of value `id`: assign when accumulate is false, else add.
  template <class T>
  struct Target {
    T* data = nullptr;
    bool accumulate = false;
    explicit operator bool() const { return data != nullptr; }
  };
  /// The target for value `id`; empty for id < 0, a value nobody asked the gradient of.
  template <class T>
  Target<T> target(int id) {
    if (id < 0) return {};
    Value& value = values_[std::size_t(id)];
    const bool accumulate = bool(value.gradient);
    if (!accumulate) value.gradient = cpu_pool().take(value.bytes);
    return {static_cast<T*>(value.gradient.data()), accumulate};
  }

  /// The gradient of value `id`, or nullptr when no step has contributed to it.
  template <class T>
  T* gradient(int id) {
    return static_cast<T*>(values_[std::size_t(id)].gradient.data());
  }

  /// Makes the gradient of `from` that of `to`, without copying, when nobody has contributed to `to` yet. Both values have
  /// the same size, and the step that calls it is done with the gradient of `from`.
  bool move_gradient(int from, int to) {
    if (to < 0 || values_[std::size_t(to)].gradient) return false;
    values_[std::size_t(to)].gradient = std::move(values_[std::size_t(from)].gradient);
    return true;
  }

  /// Keeps the gradient of `id` after the backward pass, for a caller that wants to read it.
  void keep_gradient(int id) { values_[std::size_t(id)].keep = true; }

  /// Runs the steps in reverse order. The caller has written the gradient of the result. Each step runs once.
  void backward() {
    while (!steps_.empty()) {
      const RecordedStep step = steps_.back();
      Value& value = values_[std::size_t(step.output)];
      if (value.gradient) step.run(step.held, *this);
      steps_.pop_back();
      step.destroy(step.held);
      if (Value& done = values_[std::size_t(step.output)]; !done.keep) done.gradient = Storage();
    }
  }

  bool has_steps() const { return !steps_.empty(); }

  /// Forgets everything and keeps the memory of the lists.
  void clear() {
    while (!steps_.empty()) {
      steps_.back().destroy(steps_.back().held);
      steps_.pop_back();
    }
    values_.clear();
    chunk_ = 0;
    used_ = 0;
  }

 private:
  struct Value {
    Storage gradient;
    std::size_t bytes = 0;
    bool keep = false;
  };
  struct RecordedStep {
    void* held;
    int output;
    void (*run)(void*, Tape&);
    void (*destroy)(void*);
  };
  static constexpr std::size_t chunk_bytes = std::size_t{1} << 16;

  void* take(std::size_t bytes) {
    bytes = (bytes + 63) / 64 * 64;
    if (bytes > chunk_bytes) throw Error("Tape::record: a step may keep at most 64 KiB by value; keep handles instead");
    if (chunk_ < chunks_.size() && used_ + bytes > chunk_bytes) {
      ++chunk_;
      used_ = 0;
    }
    if (chunk_ == chunks_.size()) chunks_.push_back(cpu_pool().take(chunk_bytes));
    void* place = static_cast<std::byte*>(chunks_[chunk_].data()) + used_;
    used_ += bytes;
    return place;
  }

  std::vector<Value> values_;
  std::vector<RecordedStep> steps_;
  std::vector<Storage> chunks_;
  std::size_t chunk_ = 0, used_ = 0;
};

namespace detail {

/// A tape for the length of a pass, used again by the next pass of this thread.
class TapeLease {
 public:
  TapeLease() {
    auto& idle = tapes();
    if (!idle.empty()) {
      tape_ = std::move(idle.back());
      idle.pop_back();
    } else {
      tape_ = std::make_unique<Tape>();
    }
  }
  TapeLease(TapeLease&&) = default;
  TapeLease& operator=(TapeLease&&) = delete;
  ~TapeLease() {
    if (tape_ == nullptr) return;
    tape_->clear();
    tapes().push_back(std::move(tape_));
  }
  Tape& operator*() const { return *tape_; }
  Tape* operator->() const { return tape_.get(); }

 private:
  static std::vector<std::unique_ptr<Tape>>& tapes() {
    thread_local std::vector<std::unique_ptr<Tape>> idle;
    return idle;
  }
  std::unique_ptr<Tape> tape_;
};

}  // namespace detail
}  // namespace strata::inline STRATA_ABI
