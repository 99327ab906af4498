// Everything a training run needs to go on as if it had never stopped, in one safetensors file: the weights, the state
// of optimisers, schedulers and averages, and how far the run has come.
//
//     st::save_checkpoint("run.safetensors", {.epoch = epoch + 1, .seed = seed}, net, sgd, scheduler);
//     st::CheckpointInfo info = st::load_checkpoint("run.safetensors", net, sgd, scheduler);
//
// The file is written beside its place, flushed to disk and renamed: at every moment a whole checkpoint is there under
// its name, and the one before it as run.safetensors.previous. A checksum covers every byte. A file that is damaged, or
// of another network or other objects (the tensors' names, shapes and types tell), is a FileError that lists the
// differences, and nothing is changed. load_weights takes a checkpoint too.
//
// What can be saved besides the network is any object with a state list (optim/optimizer.hpp). Objects go by their
// state_name, several of one name by their order. Options, as momentum or milestones, are the program's and not saved.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>
#ifdef _LIBCPP_VERSION
#include <locale>
#endif

#include "strata/io/safetensors.hpp"
#include "strata/io/weights.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

template <class T>
std::string number_text(T value) {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof text, value);  // doubles: the shortest that reads back as it
  return std::string(text, result.ptr);
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
#ifdef _LIBCPP_VERSION
  if constexpr (!requires { std::from_chars(text.data(), text.data(), value); }) {  // before libc++ 20, of whole numbers only
    const std::string copy(text);
    if (copy.empty() || copy.find_first_not_of("-.0123456789aefin+") != std::string::npos || copy[0] == '+') return std::nullopt;
    char* end = nullptr;
    static const auto plain = newlocale(LC_ALL_MASK, "C", nullptr);
    value = T(strtod_l(copy.c_str(), &end, plain));
    return end == copy.c_str() + copy.size() ? std::optional<T>(value) : std::nullopt;
  } else
#endif
  {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
  }
}

}  // namespace detail

/// How far a run has come. Random numbers are keyed by seed, epoch and sample, so the seed is all of the random state.
struct CheckpointInfo {
  std::int64_t epoch = 0;           ///< the epoch to go on with
  std::int64_t batch = 0;           ///< batches of that epoch that are done
  std::int64_t step = 0;            ///< optimiser steps so far
  std::uint64_t seed = 0;
  std::optional<double> best = {};  ///< best value of the run's criterion so far
  Metadata extra = {};              ///< what else the program wants to keep

  /// A number in `extra`, kept to the last bit. number() throws FileError where there is none under the key.
  void set_number(const std::string& key, double value) { extra[key] = detail::number_text(value); }
  double number(const std::string& key) const {
    const auto entry = extra.find(key);
    if (entry == extra.end())
      throw FileError(concat("the checkpoint holds no '", key, "': another program saved it; resume it with that one"));
    if (const auto value = detail::parse_number<double>(entry->second)) return *value;
    throw FileError(concat("the checkpoint's '", key, "' is \"", entry->second, "\"; wanted a number"));
  }
};

namespace detail {

inline constexpr std::string_view checkpoint_version = "1";

/// Calls f(key, number) for the numbers of an info: the one list that saving and loading follow.
void each_number(auto& info, auto&& f) {
  f("info.epoch", info.epoch);
  f("info.batch", info.batch);
  f("info.step", info.step);
  f("info.seed", info.seed);
}
inline constexpr std::string_view extra_prefix = "extra.";

/// Gives each object its prefix: "state.sgd.", and "state.sgd2." for the second of the name.
class StateNames {
 public:
  std::string prefix(std::string_view state_name) {
    const auto count = std::count(taken_.begin(), taken_.end(), state_name);
    taken_.push_back(state_name);
    return "state." + std::string(state_name) + (count > 0 ? std::to_string(count + 1) : "") + ".";
  }

 private:
  std::vector<std::string_view> taken_;
};

/// Gathers what a checkpoint holds, as pointers to it.
class CheckpointWriter {
 public:
  std::vector<NamedTensor> tensors;
  Metadata metadata;

  template <class Net>
  void add_network(const Net& net) {
    for (NamedTensor& tensor : tensors_of(net, std::string(network_prefix))) tensors.push_back(std::move(tensor));
  }

  void add(const CheckpointInfo& info) {
    metadata[std::string(checkpoint_format)] = checkpoint_version;
    each_number(info, [&](std::string_view key, auto value) { metadata[std::string(key)] = number_text(value); });
    if (info.best) metadata["info.best"] = number_text(*info.best);
    for (const auto& [key, value] : info.extra) metadata[std::string(extra_prefix) + key] = value;
  }

  template <class Object>
  void add(const Object& object) {
    prefix_ = names_.prefix(Object::state_name);
    Object::state(object, *this);
  }

  /// The name of the first tensor or number that is not finite; empty when all are.
  std::string first_not_finite() const {
    if (!not_finite_.empty()) return not_finite_;
    for (const NamedTensor& tensor : tensors)
      if (!all_finite(move_to(*tensor.tensor, Device::cpu()))) return tensor.name;
    return "";
  }

  void operator()(std::string_view name, double value) {
    const std::string& full = metadata.insert_or_assign(prefix_ + std::string(name), number_text(value)).first->first;
    if (!std::isfinite(value) && not_finite_.empty()) not_finite_ = full;
  }
  void operator()(std::string_view name, std::int64_t value) {
    metadata[prefix_ + std::string(name)] = number_text(value);
  }
  void operator()(std::string_view name, const AnyTensor& tensor, const AnyTensor&) {
    if (shape_of(tensor) != Shape{0}) tensors.push_back({prefix_ + std::string(name), &tensor});
  }

 private:
  static bool all_finite(const AnyTensor& tensor) {
    return std::visit(
        []<class T>(const Tensor<T>& numbers) {
          if constexpr (std::is_floating_point_v<T>)
            for (const T number : numbers.span())
              if (!std::isfinite(number)) return false;
          return true;
        },
        tensor);
  }

  StateNames names_;
  std::string prefix_, not_finite_;
};

/// Reads a checkpoint into values of its own, notes what does not fit, and only then, in apply(), touches an object.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path) : file_(path) {
    const auto version = file_.metadata().find(std::string(checkpoint_format));
    if (version == file_.metadata().end())
      throw FileError(path.string() + ": is not a checkpoint; load_weights reads files that hold weights alone");
    if (version->second != checkpoint_version)
      throw FileError(path.string() + ": is a checkpoint of version '" + version->second + "', wanted " +
                      std::string(checkpoint_version));
    file_.verify_checksum();
    for (const TensorInfo& tensor : file_.tensors()) tensors_left_.emplace(tensor.name, &tensor);
    numbers_left_ = file_.metadata();
  }

  CheckpointInfo info() {
    CheckpointInfo info;
    each_number(info, [&](std::string_view key, auto& value) { read_number(std::string(key), value); });
    if (numbers_left_.contains("info.best")) read_number("info.best", info.best.emplace());
    for (const auto& [key, value] : file_.metadata())
      if (key.starts_with(extra_prefix)) info.extra.emplace(key.substr(extra_prefix.size()), value);
    return info;
  }

  /// Throws FileError when a number that every checkpoint has is not there.
  void check_info() const { mismatch_.throw_if_any(file_.path(), "a checkpoint"); }

  template <class Net>
  void add_network(Net& net) {
    for_each_tensor(net, [&](const std::string& name, auto& leaf) {
      AnyTensor& value = leaf.any_value();
      const std::string full = std::string(network_prefix) + name;
      const TensorInfo* info = take_tensor(full);
      if (info == nullptr)
        mismatch_.missing(describe(NamedTensor{full, &value}));
      else if (fits(*info, full, value))
        weights_.push_back({&value, info, {}});
    });
  }

  template <class Object>
  void add(Object& object) {
    prefix_ = names_.prefix(Object::state_name);
    Object::state(object, *this);
  }

  void operator()(std::string_view name, double& value) { stage_number(name, value, doubles_); }
  void operator()(std::string_view name, std::int64_t& value) { stage_number(name, value, integers_); }
  void operator()(std::string_view name, AnyTensor& tensor, const AnyTensor& like) {
    const std::string full = prefix_ + std::string(name);
    const TensorInfo* info = take_tensor(full);
    if (info == nullptr || fits(*info, full, like)) states_.push_back({&tensor, info, like});
  }

  /// Throws FileError when anything was missing, unexpected or different; reads all tensors.
  void read() {
    for (const auto& [name, tensor] : tensors_left_) mismatch_.unexpected(describe(*tensor));
    for (const auto& [key, value] : numbers_left_)
      if (key.starts_with("state.")) mismatch_.unexpected(key);
    mismatch_.throw_if_any(file_.path(), "the network and the objects given");
    for (Staged& weight : weights_) weight.value = file_.read_like(*weight.info, *weight.target);
    for (Staged& state : states_)
      state.value = state.info == nullptr ? AnyTensor() : file_.read_like(*state.info, state.value);
  }

  /// Changes the objects. Does not fail, unless an accelerator does: DeviceError. An optimiser's state is brought to
  /// its parameters' device by its next step.
  void apply() {
    for (Staged& weight : weights_) copy_into(*weight.target, weight.value);
    for (Staged& state : states_) *state.target = std::move(state.value);
    for (const auto& [target, value] : doubles_) *target = value;
    for (const auto& [target, value] : integers_) *target = value;
  }

 private:
  struct Staged {
    AnyTensor* target;
    const TensorInfo* info;  // null: state that was not there when the checkpoint was saved
    AnyTensor value;         // before read(), a tensor of the type that is wanted
  };

  const TensorInfo* take_tensor(const std::string& name) {
    const auto found = tensors_left_.find(name);
    if (found == tensors_left_.end()) return nullptr;
    const TensorInfo* info = found->second;
    tensors_left_.erase(found);
    return info;
  }

  bool fits(const TensorInfo& info, const std::string& name, const AnyTensor& like) {
    if (info.unreadable.empty() && info.shape == shape_of(like) && info.dtype == dtype_of(like)) return true;
    mismatch_.different("the file's " + describe(info) + ", wanted " + describe(NamedTensor{name, &like}));
    return false;
  }

  template <class T>
  void read_number(const std::string& key, T& value) {
    const auto found = numbers_left_.find(key);
    if (found == numbers_left_.end()) return mismatch_.missing(key);
    const std::optional<T> number = parse_number<T>(found->second);
    if (number)
      value = *number;
    else
      mismatch_.different(key + " is '" + found->second + "', wanted a number");
    numbers_left_.erase(found);
  }

  template <class T>
  void stage_number(std::string_view name, T& target, std::vector<std::pair<T*, T>>& staged) {
    T value{};
    const std::string key = prefix_ + std::string(name);
    read_number(key, value);
    if (!std::isfinite(double(value))) mismatch_.different(key + " is not a finite number");
    staged.emplace_back(&target, value);
  }

  SafetensorsFile file_;
  Mismatch mismatch_;
  StateNames names_;
  std::string prefix_;
  TensorIndex tensors_left_;
  Metadata numbers_left_;
  std::vector<Staged> weights_, states_;
  std::vector<std::pair<double*, double>> doubles_;
  std::vector<std::pair<std::int64_t*, std::int64_t>> integers_;
};

/// Called while the error is being handled.
[[noreturn]] inline void checkpoint_failed(const std::filesystem::path& path, const FileError& error) {
  std::error_code ignored;
  if (!std::filesystem::exists(previous_path(path), ignored)) throw;
  throw FileError(std::string(error.what()) + "\n  The checkpoint before it is still there: " +
                  previous_path(path).string());
}

}  // namespace detail

/// Writes a checkpoint of the network and of any number of optimisers, schedulers, averages or other objects with a
/// state list. Throws FileError when it cannot be written; the checkpoint that was at `path` is then still there.
template <class Net, class... Objects>
void save_checkpoint(const std::filesystem::path& path, const CheckpointInfo& info, const Net& net,
                     const Objects&... objects) {
  detail::CheckpointWriter writer;
  writer.add(info);
  writer.add_network(net);
  (writer.add(objects), ...);
  write_safetensors(path, std::move(writer.tensors), writer.metadata, {.checksum = true, .keep_previous = true});
}

/// Reads a checkpoint into the network and the same objects it was saved with. Throws FileError when the file is
/// damaged or does not fit exactly, types included, or memory runs out; then nothing is changed. The text says where the
/// checkpoint before it is.
template <class Net, class... Objects>
CheckpointInfo load_checkpoint(const std::filesystem::path& path, Net& net, Objects&... objects) {
  try {
    detail::CheckpointReader reader(path);
    CheckpointInfo info = reader.info();
    reader.add_network(net);
    (reader.add(objects), ...);
    reader.read();
    reader.apply();
    return info;
  } catch (const FileError& error) {
    detail::checkpoint_failed(path, error);
  } catch (const std::bad_alloc&) {
    detail::no_memory_for(path);
  }
}

/// What a checkpoint says of its run. Reads the whole file, so that damage is found, and no tensor. Throws FileError.
inline CheckpointInfo read_checkpoint_info(const std::filesystem::path& path) {
  try {
    detail::CheckpointReader reader(path);
    CheckpointInfo info = reader.info();
    reader.check_info();
    return info;
  } catch (const FileError& error) {
    detail::checkpoint_failed(path, error);
  }
}

/// The name of the first tensor or number of the network (running statistics included) and of the objects that is NaN
/// or infinite; empty when none is. A run that has diverged looks healthy where batch norm divides by an infinite
/// variance: ask before a checkpoint replaces a good one.
template <class Net, class... Objects>
std::string first_not_finite(const Net& net, const Objects&... objects) {
  detail::CheckpointWriter writer;
  writer.add_network(net);
  (writer.add(objects), ...);
  return writer.first_not_finite();
}

}  // namespace strata::inline STRATA_ABI
