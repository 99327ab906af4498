// What a run consists of, from rank 0 to all, and whether it is the same on all.
//
//     if (world.is_first()) info = st::load_checkpoint(path, net, adam, scheduler);
//     st::broadcast(world, info, net, adam, scheduler);            // so no other rank needs to see the file
//     st::check_equal(world, "after the epoch", net, adam);        // throws Error where the bits of a rank differ
//
// Objects are those that a checkpoint takes: networks, and what has a state list (optim/optimizer.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/core/crc32.hpp"
#include "strata/distributed/world.hpp"
#include "strata/io/checkpoint.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Sends values from rank 0, and receives them elsewhere, in the order of the calls.
class Broadcaster {
 public:
  explicit Broadcaster(Communicator& ranks) : ranks_(ranks) {}

  template <class T>
    requires std::is_arithmetic_v<T>
  void operator()(T& value) {
    broadcast(ranks_, std::as_writable_bytes(std::span(&value, 1)));
  }
  void operator()(std::string& text) {
    std::vector<char> letters(text.begin(), text.end());
    broadcast(ranks_, letters);
    text.assign(letters.begin(), letters.end());
  }
  void operator()(std::map<std::string, std::string>& texts) {
    std::uint64_t count = texts.size();
    (*this)(count);
    std::map<std::string, std::string> all;
    auto next = texts.begin();
    for (std::uint64_t i = 0; i < count; ++i) {
      auto [key, value] = ranks_.rank() == 0 ? *next++ : std::pair<const std::string, std::string>();
      std::string name = key;
      (*this)(name);
      (*this)(value);
      all.emplace(std::move(name), std::move(value));
    }
    texts = std::move(all);
  }
  template <class T>
  void operator()(std::optional<T>& value) {
    bool there = value.has_value();
    (*this)(there);
    if (!there) return value.reset();
    if (!value) value.emplace();
    (*this)(*value);
  }
  void operator()(CheckpointInfo& info) {
    each_number(info, [&](std::string_view, auto& value) { (*this)(value); });
    (*this)(info.best);
    (*this)(info.extra);
  }
  /// The numbers of a tensor, of the same shape and type everywhere.
  void numbers(AnyTensor& tensor) {
    std::visit(
        [&]<class T>(Tensor<T>& there) {
          if (there.size() == 0) return;
          Tensor<T> here = there.device().kind == DeviceKind::cpu ? there : there.to(Device::cpu());
          broadcast(ranks_, std::as_writable_bytes(here.span()));
          if (there.device().kind != DeviceKind::cpu) copy_numbers(there, here);
        },
        tensor);
  }

  // ---- a state list's entries
  template <class T>
  void operator()(std::string_view, T& value)
    requires std::is_arithmetic_v<T>
  {
    (*this)(value);
  }
  /// State that is there already on rank 0, and may not be elsewhere.
  void operator()(std::string_view, AnyTensor& tensor, const AnyTensor& like) {
    bool there = shape_of(tensor) != Shape{0};
    (*this)(there);
    if (!there) {
      tensor = AnyTensor();
    } else {
      if (tensor.index() != like.index() || shape_of(tensor) != shape_of(like)) tensor = clone(like);
      numbers(tensor);
    }
  }

  template <class Object>
    requires std::is_class_v<Object>
  void object(Object& object) {
    if constexpr (requires { (*this)(object); })  // CheckpointInfo, texts
      (*this)(object);
    else if constexpr (requires { Object::state_name; })
      Object::state(object, *this);
    else
      for_each_tensor(object, [&](const std::string&, auto& leaf) { numbers(leaf.any_value()); });
  }

 private:
  Communicator& ranks_;
};

/// A checksum over everything that an object holds.
class Fingerprint {
 public:
  template <class T>
    requires std::is_arithmetic_v<T>
  void operator()(std::string_view, const T& value) {
    add(&value, sizeof value);
  }
  void operator()(std::string_view, const AnyTensor& tensor, const AnyTensor&) { numbers(tensor); }
  void numbers(const AnyTensor& tensor) {
    std::visit(
        [&]<class T>(const Tensor<T>& there) {
          if (there.size() == 0) return;
          const Tensor<T> here = there.to(Device::cpu());
          add(here.data(), std::size_t(here.size()) * sizeof(T));
        },
        tensor);
  }
  template <class Object>
  void object(const Object& object) {
    if constexpr (requires { Object::state_name; })
      Object::state(object, *this);
    else
      for_each_tensor(object, [&](const std::string&, const auto& leaf) { numbers(leaf.any_value()); });
  }
  std::uint64_t value() const { return value_; }

 private:
  void add(const void* bytes, std::size_t count) {
    value_ = value_ * 0x9e3779b97f4a7c15u +
             (std::uint64_t{count} << 32 | crc32c({static_cast<const std::byte*>(bytes), count}));
  }
  std::uint64_t value_ = 0;
};

}  // namespace detail

/// What rank 0 holds in these objects, to all. Nothing with one rank.
template <class... Objects>
void broadcast(const World& world, Objects&... objects) {
  if (world.communicator() == nullptr) return;
  detail::Broadcaster broadcaster(*world.communicator());
  (broadcaster.object(objects), ...);
}

/// Throws Error, on all ranks, where these objects are not the same to the bit everywhere. `when` ends the sentence.
template <class... Objects>
void check_equal(const World& world, const std::string& when, const Objects&... objects) {
  if (world.communicator() == nullptr) return;
  detail::Fingerprint own;
  (own.object(objects), ...);
  const std::vector<std::uint64_t> all = world.gather(std::vector<std::uint64_t>{own.value()});
  for (std::size_t rank = 1; rank < all.size(); ++rank)
    if (all[rank] != all[0])
      throw Error(concat(
          world.name(int(rank)), " holds other numbers than rank 0 ", when,
          ": something in the program depends on the rank, or a machine computes otherwise; all ranks need the same "
          "program and the same kind of processor"));
}

}}  // namespace strata::STRATA_ABI
