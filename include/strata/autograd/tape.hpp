// What a training pass records: for each computed value a step back, run in reverse order by backward().
//
//     tape.record(y.id, [=](st::Tape& tape) { ...adds to the gradients of the inputs... }, x, weight);
//
// Behind the step stands what it reads again on the way back, or refers to: variables, images, tensors and parameters.
// When one of them has changed by then, or a parameter was moved or destroyed, backward() throws (autograd/kept.hpp).
//
// Values are named by numbers, which no later pass uses again: a value of an earlier pass is known as such, and an
// error. A gradient is made when the first contribution arrives (which assigns, so nothing is cleared beforehand) and
// goes back to the pool when the step that consumed it has run, together with what that step kept from the forward
// pass. A tape's own memory is used again by the next one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <span>
#include <type_traits>
#include <unordered_set>
#include <utility>
#include <vector>

#include "strata/autograd/kept.hpp"
#include "strata/autograd/observer.hpp"
#include "strata/core/error.hpp"
#include "strata/core/fork.hpp"
#include "strata/math/gradient_target.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI {

// Found for each argument behind the step in Tape::record.
using KeptList = std::vector<detail::Kept>;
inline void keep_for_backward(KeptList& list, const Parameter& parameter) { list.emplace_back(parameter); }
template <class T>
void keep_for_backward(KeptList& list, const Tensor<T>& tensor) {
  list.emplace_back(tensor.storage(), tensor.shape());
}
template <int C, class T>
void keep_for_backward(KeptList& list, const Image<C, T>& image) {
  keep_for_backward(list, image.tensor());
}

/// Is told on the way back which gradients of parameters are whole: no step that is left to run adds to them. A
/// parameter is known by the address of its value.
class GradientListener {
 public:
  virtual ~GradientListener() = default;
  /// Before the first step: the parameters that steps refer to.
  virtual void begin(std::span<const AnyTensor* const> parameters) = 0;
  virtual void whole(const AnyTensor* parameter) = 0;
  /// After each step.
  virtual void step_done() = 0;
};

class Tape {
 public:
  Tape() = default;
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { clear(); }

  /// Names a new value of `bytes` bytes, whose gradient is to lie in the memory of `pool`.
  std::int64_t add_value(std::size_t bytes, MemoryPool& pool = cpu_pool()) {
    if (!in_pass_)
      throw Error(
          "a value is used whose training pass has ended: keep the pass for as long as its values, or take x.value()");
    values_.push_back({Storage(), bytes, &pool});
    return first_ + std::int64_t(values_.size()) - 1;
  }

  /// Whether value `id` is of the pass now recorded, and backward has not run since.
  bool holds(std::int64_t id) const { return id >= open_ && id < first_ + std::int64_t(values_.size()); }

  /// Records the step that made value `output`. `step` is called as step(Tape&) when `output` has got a gradient.
  /// `reads` are what it then reads, or writes the gradient of.
  template <class Step, class... Reads>
  void record(std::int64_t output, Step step, const Reads&... reads) {
    static_assert(alignof(Step) <= 64);
    if (forgets_) return;
    void* place = take_memory(sizeof(Step));
    const std::size_t first = kept_.size();
    (keep_for_backward(kept_, reads), ...);
    steps_.push_back({new (place) Step(std::move(step)), output, first, observer_ == nullptr ? -1 : observer_->place(),
                      [](void* held, Tape& tape) { (*static_cast<Step*>(held))(tape); },
                      [](void* held) { static_cast<Step*>(held)->~Step(); }});
  }

  template <class T>
  using Target = GradientTarget<T>;  ///< the old name
  /// Where a step writes the gradient of value `id`; empty for id < 0, a value nobody asked the gradient of.
  template <class T>
  GradientTarget<T> target(std::int64_t id) {
    if (id < 0) return {};
    if (!holds(id))
      throw Error(
          "backward: a value of an earlier pass, or from before the last backward, was used in this one: give "
          "x.value() where it is meant as a constant");
    Value& value = at(id);
    settle(value);
    const bool accumulate = bool(value.gradient);
    if (!accumulate) value.gradient = value.pool->take(value.bytes);
    return {static_cast<T*>(value.gradient.data()), accumulate};
  }

  /// The gradient of value `id`, or nullptr when no step has contributed to it.
  template <class T>
  T* gradient(std::int64_t id) {
    settle(at(id));
    return static_cast<T*>(at(id).gradient.data());
  }

  // ---- notes: what one step leaves at a gradient for the next that reads it

  /// Leaves `note` at the gradient of `id`. A step that knows its type takes it. Where another asks for the gradient,
  /// or adds to it, note->settle(gradient) is called before, and the note is gone: there it does itself what is still
  /// to be done.
  template <class Note>
  void attach(std::int64_t id, std::shared_ptr<Note> note) {
    at(id).settle = settle_note<Note>;
    at(id).note = std::move(note);
  }
  /// The note of this type at the gradient of `id`, which the caller now has to heed; nullptr where there is none. To
  /// be asked for before the gradient.
  template <class Note>
  std::shared_ptr<Note> take(std::int64_t id) {
    Value& value = at(id);
    if (value.note == nullptr || value.settle != settle_note<Note>) return nullptr;
    return std::static_pointer_cast<Note>(std::exchange(value.note, nullptr));
  }

  /// Makes the gradient of `from` that of `to`, without copying, when nobody has contributed to `to` yet. Both values
  /// have the same size, and the step that calls it is done with the gradient of `from`.
  bool move_gradient(std::int64_t from, std::int64_t to) {
    if (to < 0 || !holds(to) || at(to).gradient) return false;
    settle(at(from));
    at(to).gradient = std::move(at(from).gradient);
    return true;
  }

  /// Makes what is known of the gradient of `from`, a value of `other`, that of `to`, of which nothing is known yet:
  /// the gradient and the note at it.
  void take_gradient(Tape& other, std::int64_t from, std::int64_t to) {
    Value &source = other.at(from), &target = at(to);
    target.gradient = std::exchange(source.gradient, Storage());
    target.note = std::exchange(source.note, nullptr);
    target.settle = source.settle;
  }

  /// Keeps the gradient of `id` after the backward pass, for a caller that wants to read it.
  void keep_gradient(std::int64_t id) { at(id).keep = true; }
  /// Whether value `id` is of this pass and its gradient is kept.
  bool keeps_gradient(std::int64_t id) const {
    return id >= first_ && id < first_ + std::int64_t(values_.size()) && values_[std::size_t(id - first_)].keep;
  }

  /// Runs the steps in reverse order. The caller has written the gradient of the result. Each step runs once, also when
  /// one of them throws: the rest is then dropped. Where a step asks for a pause it returns behind that step, and goes
  /// on when it is called again. A listener is for a tape that does not pause.
  void backward(GradientListener* listener = nullptr) {
    paused_ = false;
    struct DropRest {
      Tape& tape;
      ~DropRest() {
        if (tape.paused_) return;
        tape.drop_steps();
        tape.open_ = tape.first_ + std::int64_t(tape.values_.size());
      }
    } drop_rest{*this};
    const std::vector<LastUse> last_uses = listener == nullptr ? std::vector<LastUse>() : begin(*listener);
    std::size_t uses_left = last_uses.size();
    while (!steps_.empty() && !paused_) {
      const RecordedStep step = steps_.back();
      steps_.pop_back();
      {
        const struct Destroy {
          const RecordedStep& step;
          KeptList& kept;
          ~Destroy() {
            step.destroy(step.held);
            while (kept.size() > step.first_kept) kept.pop_back();
          }
        } destroy{step, kept_};
        if (at(step.output).gradient) {
          for (std::size_t i = step.first_kept; i < kept_.size(); ++i) kept_[i].compare();
          run(step);
        }
        if (Value& done = at(step.output); !done.keep) {
          done.gradient = Storage();
          done.note = nullptr;
        }
      }
      if (listener == nullptr) continue;
      for (; uses_left > 0 && last_uses[uses_left - 1].step == steps_.size(); --uses_left)
        listener->whole(last_uses[uses_left - 1].parameter);
      listener->step_done();
    }
  }

  /// In a step: backward() is to stop behind it. It needs what is not known before tapes of others have come as far.
  void pause() { paused_ = true; }
  /// Whether backward() has stopped, and wants to be called again.
  bool paused() const { return paused_; }

  bool has_steps() const { return !steps_.empty(); }

  /// Who is told of the steps back, or nullptr.
  void set_observer(PassObserver* observer) { observer_ = observer; }

  /// Whether a pass holds this tape: only then values can be added.
  void set_in_pass(bool in_pass) {
    in_pass_ = in_pass;
    forgets_ = false;
  }
  /// Of a pass that is never to go back: no step is recorded, and nothing is kept for it.
  void forget_steps(bool forgets = true) { forgets_ = forgets; }
  bool forgets() const { return forgets_; }

  /// Forgets everything and keeps the memory of the lists.
  void clear() {
    drop_steps();
    paused_ = false;
    first_ += std::int64_t(values_.size());
    open_ = first_;
    values_.clear();
    chunk_ = 0;
    used_ = 0;
  }

 private:
  struct Value {
    Storage gradient;
    std::size_t bytes = 0;
    MemoryPool* pool = nullptr;
    bool keep = false;
    std::shared_ptr<void> note = nullptr;
    void (*settle)(void*, void*) = nullptr;  // also tells the note's type
  };
  template <class Note>
  static void settle_note(void* note, void* gradient) {
    static_cast<Note*>(note)->settle(gradient);
  }
  static void settle(Value& value) {
    if (value.note != nullptr) value.settle(std::exchange(value.note, nullptr).get(), value.gradient.data());
  }
  struct RecordedStep {
    void* held;
    std::int64_t output;
    std::size_t first_kept;  // of kept_; up to the next step's
    int place;               // the observer's
    void (*run)(void*, Tape&);
    void (*destroy)(void*);
  };
  /// The step that is the last to run of those that refer to a parameter.
  struct LastUse {
    std::size_t step;
    const AnyTensor* parameter;
  };
  std::vector<LastUse> begin(GradientListener& listener) const {
    std::vector<LastUse> uses;
    std::vector<const AnyTensor*> parameters;
    std::unordered_set<const AnyTensor*> known;
    for (std::size_t step = 0; step < steps_.size(); ++step) {
      const std::size_t end = step + 1 < steps_.size() ? steps_[step + 1].first_kept : kept_.size();
      for (std::size_t i = steps_[step].first_kept; i < end; ++i) {
        const AnyTensor* const parameter = kept_[i].parameter();
        if (parameter == nullptr || !known.insert(parameter).second) continue;
        uses.push_back({step, parameter});
        parameters.push_back(parameter);
      }
    }
    listener.begin(parameters);
    return uses;
  }
  Value& at(std::int64_t id) { return values_[std::size_t(id - first_)]; }

  void run(const RecordedStep& step) {
    if (observer_ == nullptr) return step.run(step.held, *this);
    const struct End {
      PassObserver& observer;
      ~End() { observer.end_backward(); }
    } end{*observer_};
    observer_->begin_backward(step.place);
    step.run(step.held, *this);
  }

  void drop_steps() {
    while (!steps_.empty()) {
      steps_.back().destroy(steps_.back().held);
      steps_.pop_back();
    }
    kept_.clear();
  }

  static constexpr std::size_t chunk_bytes = std::size_t{1} << 16;

  void* take_memory(std::size_t bytes) {
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
  std::int64_t first_ = 0;  // the number of values_[0]
  std::int64_t open_ = 0;   // values before this one are used up
  std::vector<RecordedStep> steps_;
  KeptList kept_;
  std::vector<Storage> chunks_;
  std::size_t chunk_ = 0, used_ = 0;
  bool in_pass_ = true, forgets_ = false, paused_ = false;
  PassObserver* observer_ = nullptr;
};

namespace detail {

/// While it lives, what is computed with the tape is not recorded: nothing of it needs a gradient.
class ForgetSteps {
 public:
  explicit ForgetSteps(Tape& tape) : tape_(tape), before_(tape.forgets()) { tape.forget_steps(); }
  ForgetSteps(const ForgetSteps&) = delete;
  ~ForgetSteps() { tape_.forget_steps(before_); }

 private:
  Tape& tape_;
  bool before_;
};

/// A tape for the length of a pass, used again by the next pass of this thread. Tapes are never destroyed, since a
/// value that outlives its pass, or even its thread, still points to its tape.
class TapeLease {
 public:
  TapeLease() : tape_(take()) { tape_->set_in_pass(true); }
  TapeLease(TapeLease&& other) noexcept : tape_(std::exchange(other.tape_, nullptr)) {}
  TapeLease& operator=(TapeLease&&) = delete;
  ~TapeLease() {
    if (tape_ == nullptr) return;
    tape_->clear();
    tape_->set_in_pass(false);
    tape_->set_observer(nullptr);
    idle().tapes.push_back(tape_);
  }
  Tape* get() const {
    if (tape_ == nullptr) throw Error("a training pass is used that was moved from: use the one it was moved to");
    return tape_;
  }
  Tape* operator->() const { return get(); }

 private:
  struct Shared {
    ForkSafeMutex guard;
    std::vector<Tape*> tapes;  // of threads that have ended
  };
  static Shared& shared() { return lasting<Shared>(); }
  struct Idle {
    std::vector<Tape*> tapes;
    ~Idle() {
      const std::lock_guard lock(shared().guard);
      shared().tapes.insert(shared().tapes.end(), tapes.begin(), tapes.end());
    }
  };
  static Idle& idle() {
    thread_local Idle of_thread;
    return of_thread;
  }
  static Tape* take() {
    std::vector<Tape*>& own = idle().tapes;
    if (own.empty()) {
      const std::lock_guard lock(shared().guard);
      if (shared().tapes.empty()) return new Tape;
      own.push_back(shared().tapes.back());
      shared().tapes.pop_back();
    }
    Tape* const tape = own.back();
    own.pop_back();
    return tape;
  }

  Tape* tape_;
};

}  // namespace detail
}}  // namespace strata::STRATA_ABI
