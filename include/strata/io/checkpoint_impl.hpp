// Definitions of io/checkpoint.hpp.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <memory>
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

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"
#include "strata/io/checkpoint.hpp"
#include "strata/io/detail/elements.hpp"
#include "strata/io/detail/mismatch.hpp"
#include "strata/io/detail/weights_match.hpp"
#include "strata/io/detail/weights_read.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

template <class T>
std::string shortest_text(T value) {
  char text[64];
  const auto result = std::to_chars(text, text + sizeof text, value);
  return std::string(text, result.ptr);
}

template <class T>
bool all_of_text(std::string_view text, T& value) {
#ifdef _LIBCPP_VERSION
  if constexpr (!requires {
                  std::from_chars(text.data(), text.data(), value);
                }) {  // before libc++ 20, of whole numbers only
    const std::string copy(text);
    if (copy.empty() || copy.find_first_not_of("-.0123456789aefin+") != std::string::npos || copy[0] == '+')
      return false;
    char* end = nullptr;
    static const auto plain = newlocale(LC_ALL_MASK, "C", nullptr);
    value = T(strtod_l(copy.c_str(), &end, plain));
    return end == copy.c_str() + copy.size();
  } else
#endif
  {
    const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
    return failure == std::errc{} && end == text.data() + text.size();
  }
}

STRATA_INLINE std::string text_of_number(double value) { return shortest_text(value); }
STRATA_INLINE std::string text_of_number(float value) { return shortest_text(value); }
STRATA_INLINE std::string text_of_number(std::int64_t value) { return shortest_text(value); }
STRATA_INLINE std::string text_of_number(std::uint64_t value) { return shortest_text(value); }
STRATA_INLINE bool number_of_text(std::string_view text, double& value) { return all_of_text(text, value); }
STRATA_INLINE bool number_of_text(std::string_view text, float& value) { return all_of_text(text, value); }
STRATA_INLINE bool number_of_text(std::string_view text, std::int64_t& value) {
  return all_of_text(text, value);
}
STRATA_INLINE bool number_of_text(std::string_view text, std::uint64_t& value) {
  return all_of_text(text, value);
}

inline constexpr std::string_view checkpoint_version = "1";

/// Calls f(key, number) for the numbers of an info: the one list that saving and loading follow.
void each_number(auto& info, auto&& f) {
  f("info.epoch", info.epoch);
  f("info.batch", info.batch);
  f("info.step", info.step);
  f("info.seed", info.seed);
}
inline constexpr std::string_view extra_prefix = "extra.";

}  // namespace detail

STRATA_INLINE void CheckpointInfo::set_number(const std::string& key, double value) {
  extra[key] = detail::number_text(value);
}

STRATA_INLINE double CheckpointInfo::number(const std::string& key) const {
  const auto entry = extra.find(key);
  if (entry == extra.end())
    throw FileError(concat("the checkpoint holds no '", key, "': another program saved it; resume it with that one"));
  if (const auto value = detail::parse_number<double>(entry->second)) return *value;
  throw FileError(concat("the checkpoint's '", key, "' is \"", entry->second, "\"; wanted a number"));
}

namespace detail {

STRATA_INLINE std::string StateNames::prefix(std::string_view state_name) {
  const auto count = std::count(taken_.begin(), taken_.end(), state_name);
  taken_.push_back(state_name);
  return "state." + std::string(state_name) + (count > 0 ? std::to_string(count + 1) : "") + ".";
}

STRATA_INLINE void CheckpointWriter::add(const CheckpointInfo& info) {
  metadata[std::string(checkpoint_format)] = checkpoint_version;
  each_number(info, [&](std::string_view key, auto value) { metadata[std::string(key)] = number_text(value); });
  if (info.best) metadata["info.best"] = number_text(*info.best);
  for (const auto& [key, value] : info.extra) metadata[std::string(extra_prefix) + key] = value;
}

inline bool all_finite(const AnyTensor& tensor) {
  return std::visit(
      []<class T>(const Tensor<T>& numbers) {
        if constexpr (std::is_floating_point_v<T>)
          for (const T number : numbers.span())
            if (!std::isfinite(number)) return false;
        return true;
      },
      tensor);
}

STRATA_INLINE std::string CheckpointWriter::first_not_finite() const {
  if (!not_finite_.empty()) return not_finite_;
  for (const NamedTensor& tensor : tensors)
    if (!all_finite(move_to(*tensor.tensor, Device::cpu()))) return tensor.name;
  return "";
}

STRATA_INLINE void CheckpointWriter::operator()(std::string_view name, double value) {
  const std::string& full = metadata.insert_or_assign(prefix_ + std::string(name), number_text(value)).first->first;
  if (!std::isfinite(value) && not_finite_.empty()) not_finite_ = full;
}

STRATA_INLINE void CheckpointWriter::operator()(std::string_view name, std::int64_t value) {
  metadata[prefix_ + std::string(name)] = number_text(value);
}

STRATA_INLINE void CheckpointWriter::operator()(std::string_view name, const AnyTensor& tensor, const AnyTensor&) {
  if (shape_of(tensor) != Shape{0}) tensors.push_back({prefix_ + std::string(name), &tensor});
}

class CheckpointReader::Staging {
 public:
  explicit Staging(const std::filesystem::path& path) : file_(path) {
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

  void check_info() const { mismatch_.throw_if_any(file_.path(), "a checkpoint"); }

  void add_weight(const std::string& name, AnyTensor& value) {
    const std::string full = std::string(network_prefix) + name;
    const TensorInfo* info = take_tensor(full);
    if (info == nullptr)
      mismatch_.missing(describe(NamedTensor{full, &value}));
    else if (fits(*info, full, value))
      weights_.push_back({&value, info, {}});
  }
  void begin_object(std::string_view state_name) { prefix_ = names_.prefix(state_name); }

  void operator()(std::string_view name, double& value) { stage_number(name, value, doubles_); }
  void operator()(std::string_view name, std::int64_t& value) { stage_number(name, value, integers_); }
  void operator()(std::string_view name, AnyTensor& tensor, const AnyTensor& like) {
    const std::string full = prefix_ + std::string(name);
    const TensorInfo* info = take_tensor(full);
    if (info == nullptr || fits(*info, full, like)) states_.push_back({&tensor, info, like});
  }

  void read() {
    for (const auto& [name, tensor] : tensors_left_) mismatch_.unexpected(describe(*tensor));
    for (const auto& [key, value] : numbers_left_)
      if (key.starts_with("state.")) mismatch_.unexpected(key);
    mismatch_.throw_if_any(file_.path(), "the network and the objects given");
    for (Staged& weight : weights_) weight.value = file_.read_like(*weight.info, *weight.target);
    for (Staged& state : states_)
      state.value = state.info == nullptr ? AnyTensor() : file_.read_like(*state.info, state.value);
  }

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

STRATA_INLINE CheckpointReader::CheckpointReader(const std::filesystem::path& path)
    : staging_(std::make_unique<Staging>(path)) {}
STRATA_INLINE CheckpointReader::~CheckpointReader() = default;
STRATA_INLINE CheckpointInfo CheckpointReader::info() { return staging_->info(); }
STRATA_INLINE void CheckpointReader::check_info() const { staging_->check_info(); }
STRATA_INLINE void CheckpointReader::operator()(std::string_view name, double& value) { (*staging_)(name, value); }
STRATA_INLINE void CheckpointReader::operator()(std::string_view name, std::int64_t& value) {
  (*staging_)(name, value);
}
STRATA_INLINE void CheckpointReader::operator()(std::string_view name, AnyTensor& tensor, const AnyTensor& like) {
  (*staging_)(name, tensor, like);
}
STRATA_INLINE void CheckpointReader::read() { staging_->read(); }
STRATA_INLINE void CheckpointReader::apply() { staging_->apply(); }
STRATA_INLINE void CheckpointReader::add_weight(const std::string& name, AnyTensor& value) {
  staging_->add_weight(name, value);
}
STRATA_INLINE void CheckpointReader::begin_object(std::string_view state_name) { staging_->begin_object(state_name); }

STRATA_INLINE void checkpoint_failed(const std::filesystem::path& path, const FileError& error) {
  std::error_code ignored;
  if (!std::filesystem::exists(previous_path(path), ignored)) throw;
  throw FileError(std::string(error.what()) +
                  "\n  The checkpoint before it is still there: " + previous_path(path).string());
}

}  // namespace detail

STRATA_INLINE CheckpointInfo read_checkpoint_info(const std::filesystem::path& path) {
  try {
    detail::CheckpointReader reader(path);
    CheckpointInfo info = reader.info();
    reader.check_info();
    return info;
  } catch (const FileError& error) {
    detail::checkpoint_failed(path, error);
  }
}

}  // namespace strata::inline STRATA_ABI
