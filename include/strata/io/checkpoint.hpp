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

#include <cstdint>
#include <filesystem>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "strata/io/safetensors.hpp"
#include "strata/io/weights.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// Numbers as texts, those with a point as the shortest that reads back as it.
std::string text_of_number(double value);
std::string text_of_number(float value);
std::string text_of_number(std::int64_t value);
std::string text_of_number(std::uint64_t value);
/// Reads a text that is a number and nothing else. False for others, and for what the type cannot hold.
bool number_of_text(std::string_view text, double& value);
bool number_of_text(std::string_view text, float& value);
bool number_of_text(std::string_view text, std::int64_t& value);
bool number_of_text(std::string_view text, std::uint64_t& value);

/// The types that numbers of type T are written and read as.
template <class T>
using NumberInText = std::conditional_t<std::is_floating_point_v<T>, T,
                                        std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>>;

template <class T>
std::string number_text(T value) {
  return text_of_number(NumberInText<T>(value));
}

template <class T>
std::optional<T> parse_number(std::string_view text) {
  NumberInText<T> value{};
  if (!number_of_text(text, value)) return std::nullopt;
  if constexpr (std::is_integral_v<T>)
    if (!std::in_range<T>(value)) return std::nullopt;
  return static_cast<T>(value);
}

}  // namespace detail

/// How far a run has come. Random numbers are keyed by seed, epoch and sample, so the seed is all of the random state.
struct CheckpointInfo {
  std::int64_t epoch = 0;  ///< the epoch to go on with
  std::int64_t batch = 0;  ///< batches of that epoch that are done
  std::int64_t step = 0;   ///< optimiser steps so far
  std::uint64_t seed = 0;
  std::optional<double> best = {};  ///< best value of the run's criterion so far
  Metadata extra = {};              ///< what else the program wants to keep

  /// A number in `extra`, kept to the last bit. number() throws FileError where there is none under the key.
  void set_number(const std::string& key, double value);
  double number(const std::string& key) const;
};

namespace detail {

/// Gives each object its prefix: "state.sgd.", and "state.sgd2." for the second of the name.
class StateNames {
 public:
  std::string prefix(std::string_view state_name);

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

  void add(const CheckpointInfo& info);

  template <class Object>
  void add(const Object& object) {
    prefix_ = names_.prefix(Object::state_name);
    Object::state(object, *this);
  }

  /// The name of the first tensor or number that is not finite; empty when all are.
  std::string first_not_finite() const;

  void operator()(std::string_view name, double value);
  void operator()(std::string_view name, std::int64_t value);
  void operator()(std::string_view name, const AnyTensor& tensor, const AnyTensor&);

 private:
  StateNames names_;
  std::string prefix_, not_finite_;
};

/// Reads a checkpoint into values of its own, notes what does not fit, and only then, in apply(), touches an object.
class CheckpointReader {
 public:
  explicit CheckpointReader(const std::filesystem::path& path);
  CheckpointReader(const CheckpointReader&) = delete;
  CheckpointReader& operator=(const CheckpointReader&) = delete;
  ~CheckpointReader();

  CheckpointInfo info();
  /// Throws FileError when a number that every checkpoint has is not there.
  void check_info() const;

  template <class Net>
  void add_network(Net& net) {
    for_each_tensor(net, [&](const std::string& name, auto& leaf) { add_weight(name, leaf.any_value()); });
  }
  template <class Object>
  void add(Object& object) {
    begin_object(Object::state_name);
    Object::state(object, *this);
  }
  void operator()(std::string_view name, double& value);
  void operator()(std::string_view name, std::int64_t& value);
  void operator()(std::string_view name, AnyTensor& tensor, const AnyTensor& like);

  /// Throws FileError when anything was missing, unexpected or different; reads all tensors.
  void read();
  /// Changes the objects. Does not fail, unless an accelerator does: DeviceError. An optimiser's state is brought to
  /// its parameters' device by its next step.
  void apply();

 private:
  class Staging;
  void add_weight(const std::string& name, AnyTensor& value);
  void begin_object(std::string_view state_name);

  std::unique_ptr<Staging> staging_;
};

/// Called while the error is being handled.
[[noreturn]] void checkpoint_failed(const std::filesystem::path& path, const FileError& error);

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
/// damaged or does not fit exactly, types included, or memory runs out; then nothing is changed. The text says where
/// the checkpoint before it is.
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
CheckpointInfo read_checkpoint_info(const std::filesystem::path& path);

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

#ifndef STRATA_COMPILED
#include "strata/io/checkpoint_impl.hpp"
#endif
