// What all optimisers share: the list of a network's parameters, the learning rate, and the walk over trainable ones.
//
//     st::SGD sgd(net, {.lr = 0.1, .momentum = 0.9});
//     sgd.zero_grad();
//     pass.backward(loss);
//     sgd.step();
//
// Parameters that want another learning rate or decay, or none: optim/parameter_group.hpp. The gradient of a large
// batch in several passes over small ones: backward() adds, so give each pass its share of the loss and step once:
//
//     sgd.zero_grad();
//     for (const auto& [noisy, clean] : four_small_batches) {
//       st::Train pass;
//       pass.backward(mse(net(pass, noisy), clean) / 4);     // means of equally large parts
//     }
//     sgd.step();
//
// It is that of the large batch but for rounding, where no batch norm takes its statistics from the batch.
//
// An optimiser keeps pointers to the network's parameters: the network must outlive it and must not move, which is an
// Error when the optimiser is used next, and members must not be added to it afterwards. Assigning to the network, as
// when the best weights so far are put back, changes its numbers only.
//
// State that a checkpoint keeps is given as one list, from which saving and loading both follow:
//
//     static constexpr std::string_view state_name = "sgd";
//     static void state(auto& self, auto&& f) { f("lr", self.lr_); f("conv.weight.velocity", tensor, like); }
//
// An entry is a double, a std::int64_t, or an AnyTensor together with a tensor whose shape and type it has once it
// exists (an AnyTensor of shape (0) is state that is not there yet).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <iterator>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/parameter.hpp"
#include "strata/autograd/visit.hpp"
#include "strata/optim/parameter_group.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// Throws ValueError unless `good`; "SGD: lr is -1, wanted a number of at least 0".
inline void check_option(bool good, std::string_view who, std::string_view option, double value,
                         std::string_view wanted) {
  if (!good) throw ValueError(concat(who, ": ", option, " is ", value, ", wanted ", wanted));
}
inline bool finite_and_not_negative(double value) { return std::isfinite(value) && value >= 0; }

/// State for a tensor, beside it and of its shape: kept when it is that already, brought to it when it is on another
/// device, and else made anew, uninitialised.
template <class T>
Tensor<T>& state_beside(AnyTensor& state, const Tensor<T>& value) {
  if (shape_of(state) != value.shape() || !std::holds_alternative<Tensor<T>>(state))
    state = Tensor<T>(value.shape(), value.pool());
  else if (tensor_device(state) != value.device())
    state = move_to(state, value.device());
  return std::get<Tensor<T>>(state);
}

/// Tensors on accelerators that are to be changed alike: collected, then handed over at once.
template <class Item>
class DeviceBatch {
 public:
  void add(Device device, const Item& item) {
    if (!items_.empty() && device != device_)
      throw DeviceError(concat("an optimiser's step on parameters of ", device_.str(), " and ", device.str(),
                               ": a network is on one device"));
    device_ = device;
    items_.push_back(item);
  }
  /// f(accelerator, items) when there are any. None is left for the next step, also where f throws.
  template <class F>
  void flush(F&& f) {
    const struct Clear {
      std::vector<Item>& items;
      ~Clear() { items.clear(); }
    } clear{items_};
    if (!items_.empty()) f(accelerator(device_), std::span<const Item>(items_));
  }
  void clear() { items_.clear(); }

 private:
  Device device_ = Device::cpu();
  std::vector<Item> items_;
};
template <class Item>
using DeviceBatches = std::vector<DeviceBatch<Item>>;  // one for each of an optimiser's Settings

/// f(accelerator, items, number of the batch) for each that has any. None is left, also where f throws.
template <class Item, class F>
void flush_all(DeviceBatches<Item>& batches, F&& f) {
  const struct Clear {
    DeviceBatches<Item>& batches;
    ~Clear() {
      for (DeviceBatch<Item>& batch : batches) batch.clear();
    }
  } clear{batches};
  for (std::size_t s = 0; s < batches.size(); ++s)
    batches[s].flush([&](Accelerator& gpu, std::span<const Item> items) { f(gpu, items, s); });
}

/// Calls f(T*, ...) on the elements of a parameter's value and its gradient.
template <class F>
void with_value_and_grad(Parameter& parameter, F&& f) {
  if (auto* floats = std::get_if<Tensor<float>>(&parameter.any_value()))
    f(*floats, parameter.grad<float>());
  else if (auto* doubles = std::get_if<Tensor<double>>(&parameter.any_value()))
    f(*doubles, parameter.grad<double>());
}

}  // namespace detail

/// The base of all optimisers; learning-rate schedulers take it.
class Optimizer {
 public:
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// Forgets the gradients of all parameters.
  void zero_grad() {
    for (Slot& slot : slots_) slot.parameter->zero_grad();
  }

  /// Calls f(name, parameter) for every parameter it was made for.
  template <class F>
  void each_parameter(F&& f) {
    for (Slot& slot : slots_) f(std::as_const(slot.name), *slot.parameter);
  }

  double lr() const { return lr_; }
  /// Of the parameter of this name, its group considered. Throws ValueError where there is none.
  double lr_of(std::string_view name) const { return lr_ * settings_of(slot_of(name)).lr_factor; }
  double weight_decay_of(std::string_view name) const { return settings_of(slot_of(name)).weight_decay; }
  /// Throws ValueError unless lr is a finite number of at least 0.
  void set_lr(double lr) {
    detail::check_option(detail::finite_and_not_negative(lr), who_, "lr", lr, "a number of at least 0");
    lr_ = lr;
  }

 protected:
  struct Slot {
    std::string name;
    detail::LeafPointer<Parameter> parameter;
    std::size_t settings = 0;  ///< the number of its Settings
  };
  /// What parameters of some groups have in common.
  struct Settings {
    double lr_factor = 1, weight_decay = 0;
    bool operator==(const Settings&) const = default;
  };

  template <class Net>
  Optimizer(Net& net, std::string_view who, double lr, double weight_decay, bool allow_unused,
            const std::vector<ParameterGroup>& groups)
      : who_(who), allow_unused_(allow_unused) {
    static_assert(!std::is_const_v<Net>, "strata: an optimiser changes its network, so the network must not be const");
    static_assert(detail::holds_state<Net>,
                  "strata: an optimiser wants a network: a type with parameters and a visit() that lists its members");
    for_each_parameter(net, [&](const std::string& name, Parameter& p) {
      slots_.push_back({name, {who_, name, p, p}});
    });
    check_listed_once();
    if (slots_.empty()) throw ValueError(concat(who_, ": the network has no parameters, so there is nothing to learn"));
    set_lr(lr);
    detail::check_option(detail::finite_and_not_negative(weight_decay), who, "weight_decay", weight_decay,
                         "a number of at least 0");
    settings_.push_back({1, weight_decay});
    if (groups.empty()) return;
    std::size_t next = 0;
    std::vector<std::size_t> members(groups.size());
    std::vector<std::pair<Parameter*, bool>> frozen;
    const auto assign = [&](const std::string&, Parameter& parameter, ParameterKind kind) {
      Slot& slot = slots_[next++];
      slot.settings = join_groups(groups, {slot.name, kind, parameter.shape()}, parameter, members, frozen);
    };
    check_groups(groups);
    for_each_parameter_kind(net, assign);
    for (std::size_t g = 0; g < groups.size(); ++g)
      if (members[g] == 0)
        throw ValueError(concat(who_, ": no parameter belongs to group number ", g,
                                " (from 0): the network's are called '", slots_.front().name, "' to '",
                                slots_.back().name, "'"));
    for (const auto& [parameter, is_frozen] : frozen) parameter->requires_grad = !is_frozen;
  }
  ~Optimizer() = default;

  const std::vector<Slot>& parameter_slots() const { return slots_; }
  const std::vector<Settings>& settings() const { return settings_; }
  const Settings& settings_of(const Slot& slot) const { return settings_[slot.settings]; }
  const Settings& settings_of(std::size_t parameter) const { return settings_of(slots_[parameter]); }

  /// Calls update(index, value, grad) for every parameter to be changed, as Tensor<float> or Tensor<double>.
  /// fits(index, value) says whether the state kept for a parameter has its present type. Everything is checked before
  /// anything is changed.
  template <class Fits, class Update>
  void update_parameters(Fits&& fits, Update&& update) {
    bool any = false;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Parameter& parameter = *slots_[i].parameter;
      if (!parameter.requires_grad) continue;
      any = true;
      check_parameter(slots_[i].name, parameter);
      if (!fits(i, parameter.any_value()))
        throw Error(concat(who_, "::step: '", slots_[i].name, "' changed its type or shape since the last step: ",
                           "convert a network before its optimiser is made"));
    }
    if (!any) throw Error(concat(who_, "::step: every parameter has requires_grad = false: nothing is learned"));
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Parameter& parameter = *slots_[i].parameter;
      if (parameter.requires_grad && parameter.has_grad() && parameter.size() > 0)
        detail::with_value_and_grad(parameter, [&](auto& value, auto& grad) { update(i, value, grad); });
    }
  }

  double lr_ = 0;

 private:
  const Slot& slot_of(std::string_view name) const {
    for (const Slot& slot : slots_)
      if (slot.name == name) return slot;
    throw ValueError(
        concat(who_, ": there is no parameter '", name, "'; the first is called '", slots_.front().name, "'"));
  }

  void check_groups(const std::vector<ParameterGroup>& groups) const {
    using detail::check_option;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const ParameterGroup& group = groups[g];
      if (!group.when)
        throw ValueError(
            concat(who_, ": group number ", g, " (from 0) says nothing of which parameters it is for: give .when"));
      if (group.lr && group.lr_factor)
        throw ValueError(
            concat(who_, ": group number ", g, " (from 0) gives both lr and lr_factor: give one of the two"));
      for (const auto& [value, option] : {std::pair{group.lr, "a group's lr"}, {group.lr_factor, "a group's lr_factor"},
                                          {group.weight_decay, "a group's weight_decay"}})
        if (value)
          check_option(detail::finite_and_not_negative(*value), who_, option, *value, "a number of at least 0");
      if (group.lr && lr_ == 0)
        throw ValueError(
            concat(who_, ": group number ", g, " (from 0) has the learning rate ", *group.lr,
                   ", and the optimiser's own is 0, so they have no ratio for schedules to keep: give another"));
    }
  }

  /// The number of the settings that the groups make for a parameter.
  std::size_t join_groups(const std::vector<ParameterGroup>& groups, const ParameterFacts& facts, Parameter& parameter,
                          std::vector<std::size_t>& members, std::vector<std::pair<Parameter*, bool>>& frozen) {
    Settings joined = settings_.front();
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const ParameterGroup& group = groups[g];
      if (!group.when(facts)) continue;
      ++members[g];
      if (group.lr) joined.lr_factor = *group.lr / lr_;
      if (group.lr_factor) joined.lr_factor = *group.lr_factor;
      if (group.weight_decay) joined.weight_decay = *group.weight_decay;
      if (group.frozen) frozen.emplace_back(&parameter, *group.frozen);
    }
    const auto place = std::find(settings_.begin(), settings_.end(), joined);
    if (place == settings_.end()) settings_.push_back(joined);
    return std::size_t(std::find(settings_.begin(), settings_.end(), joined) - settings_.begin());
  }

  void check_listed_once() const {
    std::vector<std::pair<const Parameter*, const std::string*>> places;
    for (const Slot& slot : slots_) places.emplace_back(&*slot.parameter, &slot.name);
    std::stable_sort(places.begin(), places.end(),
                     [](const auto& a, const auto& b) { return std::less<>()(a.first, b.first); });
    const auto twice = std::adjacent_find(places.begin(), places.end(),
                                          [](const auto& a, const auto& b) { return a.first == b.first; });
    if (twice != places.end())
      throw Error(concat(who_, ": '", *twice->second, "' and '", *std::next(twice)->second,
                         "' are one parameter, which would be "
                         "changed twice in a step: a network's lists must name each member once"));
  }

  void check_parameter(const std::string& name, Parameter& parameter) const {
    if (parameter.any_value().index() > 1) throw Error(concat(who_, "::step: '", name, "' does not hold floats"));
    if (on_accelerator(parameter.device()) && parameter.any_value().index() != 0)
      detail::throw_not_float(parameter.device());
    if (!parameter.has_grad()) {
      if (allow_unused_) return;
      throw Error(concat(who_, "::step: parameter '", name, "' got no gradient since zero_grad: the loss does not ",
                         "depend on it, or backward was not called. Set its requires_grad to false, or ",
                         ".allow_unused = true"));
    }
    detail::with_value_and_grad(parameter, [&](auto& value, auto& grad) {
      if (grad.shape() != value.shape())
        throw ShapeError(concat(who_, "::step: '", name, "' has shape ", value.shape().str(), ", its gradient ",
                                grad.shape().str()));
    });
  }

  std::string_view who_;
  std::vector<Slot> slots_;
  std::vector<Settings> settings_;  // the first is that of no group
  bool allow_unused_;
};

namespace detail {

/// Whether `state` is not there yet, or has the shape and type of `like`.
inline bool empty_or_like(const AnyTensor& state, const AnyTensor& like) {
  return shape_of(state) == Shape{0} || (state.index() == like.index() && shape_of(state) == shape_of(like));
}

}  // namespace detail

}}  // namespace strata::STRATA_ABI
