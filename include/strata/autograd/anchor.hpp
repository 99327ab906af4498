// A pointer to a parameter or a buffer that knows what has become of it. A tape, an optimiser and a moving average keep
// such pointers; a network that is moved or destroyed under them is then an error with a sentence.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

enum class Fate { here, moved, destroyed };

/// What an Anchored and those who point to it share. Made when somebody first points.
struct Anchor {
  std::atomic<int> holders{1};
  std::atomic<Fate> fate{Fate::here};
};

class AnchorHandle {
 public:
  constexpr AnchorHandle() = default;
  explicit AnchorHandle(Anchor* anchor) : anchor_(anchor) { anchor_->holders.fetch_add(1, std::memory_order_relaxed); }
  AnchorHandle(const AnchorHandle& other) : anchor_(other.anchor_) {
    if (anchor_ != nullptr) anchor_->holders.fetch_add(1, std::memory_order_relaxed);
  }
  AnchorHandle(AnchorHandle&& other) noexcept : anchor_(std::exchange(other.anchor_, nullptr)) {}
  AnchorHandle& operator=(AnchorHandle other) noexcept {
    std::swap(anchor_, other.anchor_);
    return *this;
  }
  ~AnchorHandle() {
    if (anchor_ != nullptr) drop(anchor_);
  }

  Fate fate() const { return anchor_ == nullptr ? Fate::here : anchor_->fate.load(std::memory_order_relaxed); }

  static void drop(Anchor* anchor) noexcept {
    if (anchor->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete anchor;
  }

 private:
  Anchor* anchor_ = nullptr;
};

/// The base of Parameter and Buffer. A copy is another leaf; who moves from a leaf ends it for those who point to it.
/// What is assigned to one changes its numbers and leaves it in its place.
class Anchored {
 public:
  /// What the first bytes are of each that has numbers, by which listed.hpp finds those that no list names.
  static constexpr std::uint64_t mark = 0x9C6E51A73B4D82F1u;

  constexpr Anchored() = default;
  constexpr explicit Anchored(bool has_numbers) : mark_(has_numbers ? mark : 0) {}
  constexpr Anchored(const Anchored& other) : mark_(other.mark_) {}
  constexpr Anchored(Anchored&& other) noexcept : mark_(other.mark_) { other.end(Fate::moved); }
  constexpr Anchored& operator=(const Anchored& other) noexcept {
    mark_ = other.mark_;
    return *this;
  }
  constexpr ~Anchored() {
    end(Fate::destroyed);
    if (!std::is_constant_evaluated()) *const_cast<volatile std::uint64_t*>(&mark_) = 0;  // memory keeps what lay in it
  }

  AnchorHandle anchor() const {
    if (anchor_ == nullptr) anchor_ = new Anchor;
    return AnchorHandle(anchor_);
  }

 private:
  constexpr void end(Fate fate) noexcept {
    if (std::is_constant_evaluated() || anchor_ == nullptr) return;  // nobody points to what the compiler makes
    anchor_->fate.store(fate, std::memory_order_relaxed);
    AnchorHandle::drop(std::exchange(anchor_, nullptr));
  }

  std::uint64_t mark_ = 0;
  mutable Anchor* anchor_ = nullptr;
};

/// What happened to something that was to stay: "was moved (...)".
inline const char* text_of(Fate fate) {
  return fate == Fate::moved ? "was moved (by std::move, std::swap, or a std::vector that grew)"
                             : "was destroyed (at the end of its scope, or in a std::vector that grew)";
}

/// A named pointer to a leaf, or to something in it. Throws Error, naming it, when it is used and the leaf is not
/// there.
template <class T>
class LeafPointer {
 public:
  LeafPointer(std::string_view who, std::string name, const Anchored& leaf, T& object)
      : who_(who), name_(std::move(name)), anchor_(leaf.anchor()), object_(&object) {}

  const std::string& name() const { return name_; }
  bool there() const { return anchor_.fate() == Fate::here; }
  T& operator*() const {
    if (!there()) throw_gone();
    return *object_;
  }
  T* operator->() const { return &**this; }

 private:
  [[noreturn]] void throw_gone() const {
    throw Error(concat(who_, ": '", name_, "' ", text_of(anchor_.fate()), " after ", who_,
                       " was made for its network, which must ",
                       "outlive it and stay where it is: make it anew for the network that is to be used"));
  }

  std::string_view who_;
  std::string name_;
  AnchorHandle anchor_;
  T* object_;
};

}}}  // namespace strata::STRATA_ABI::detail
