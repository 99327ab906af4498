// The options that make a training run what it is. They are kept in its checkpoints, so that a run that is resumed goes
// on with what it began with, and an option that is given anew does what is said of it.
#pragma once

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/strata.hpp"

namespace training {

namespace st = strata;

/// What becomes of an option that is given with another value when a run is resumed.
enum class Change {
  counts,      ///< it holds from there on
  measures,    ///< the same, and validations before and after it cannot be compared
  refused,     ///< the network or its optimiser would be another one
  of_machine,  ///< it holds, and is not taken over from the run, since it is about the machine
};

namespace detail {

inline std::string toml_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') quoted += '\\';
    quoted += letter;
  }
  return quoted + '"';
}

template <class T>
std::string option_text(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
    std::string text;
    for (const std::int64_t number : value) text += (text.empty() ? "" : ",") + std::to_string(number);
    return text;
  } else {
    return st::detail::number_text(value);
  }
}

/// The same as TOML.
template <class T>
std::string option_toml(const T& value) {
  const std::string text = option_text(value);
  if constexpr (std::is_same_v<T, std::vector<std::int64_t>>)
    return "[" + text + "]";
  else
    return std::is_same_v<T, std::string> ? toml_string(text) : text;
}

/// Whether `text` was the text of such a value, which is then assigned.
template <class T>
bool read_option(const std::string& text, T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    value = text;
    return true;
  } else if constexpr (std::is_same_v<T, std::vector<std::int64_t>>) {
    value.clear();
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find(',', begin), text.size());
      const auto number = st::detail::parse_number<std::int64_t>(std::string_view(text).substr(begin, end - begin));
      if (!number) return false;
      value.push_back(*number);
      begin = end + 1;
    }
    return true;
  } else {
    const auto number = st::detail::parse_number<T>(text);
    if (number) value = *number;
    return number.has_value();
  }
}

}  // namespace detail

class Recipe {
 public:
  /// The option --name, which is kept in `value`; that must outlive the recipe.
  template <class T>
  void add(std::string name, T& value, Change change = Change::counts) {
    add(
        std::move(name), change, [&value] { return detail::option_text(value); },
        [&value](const std::string& text) { return detail::read_option(text, value); });
    options_.back().toml = [&value] { return detail::option_toml(value); };
  }
  void add(std::string name, Change change, std::function<std::string()> text,
           std::function<bool(const std::string&)> set) {
    options_.push_back({std::move(name), change, text, std::move(set), [text] { return detail::toml_string(text()); }});
  }

  /// "sigma=25 depth=17 ...": for people, and to compare.
  std::string str(bool measures_alone = false) const {
    std::string all;
    for (const Option& option : options_)
      if (!measures_alone || option.change == Change::measures)
        all += st::concat(all.empty() ? "" : " ", option.name, "=", option.text());
    return all;
  }

  /// A line for each option: a file for --config.
  std::string toml() const {
    std::string all;
    for (const Option& option : options_) all += st::concat(option.name, " = ", option.toml(), "\n");
    return all;
  }

  void write(st::Metadata& extra) const {
    for (const Option& option : options_) extra[key(option)] = option.text();
    extra["recipe"] = str();
  }

  /// For a run that goes on from the checkpoint `file`: options that the command line does not give become what they
  /// were, and of those that it changes one line each says so. Throws ValueError for one that cannot be changed.
  void go_on_from(const st::Metadata& extra, const std::filesystem::path& file, const CLI::App& app) {
    bool known = false;
    for (const Option& option : options_) known = known || extra.contains(key(option));
    if (!known) {
      std::printf("note: %s does not say with which options it was made; those given now, and defaults, count\n",
                  file.c_str());
      all_changed_ = true;
      return;
    }
    for (const Option& option : options_) {
      const auto entry = extra.find(key(option));
      if (entry == extra.end() || entry->second == option.text()) continue;
      if (app.count("--" + option.name) == 0 && option.change != Change::of_machine) {
        if (!option.set(entry->second))
          throw st::FileError(st::concat(file.string(), ": its ", entry->first, " is '", entry->second,
                                         "', no value of --", option.name));
        continue;
      }
      if (option.change == Change::refused)
        throw st::ValueError(st::concat("--", option.name, " ", option.text(), ": ", file.string(),
                                        " does not fit, it was made with ", entry->second,
                                        "; leave the option out, or train anew in another --checkpoint-dir"));
      std::printf("note: from here on %s=%s, before it was %s\n", option.name.c_str(), option.text().c_str(),
                  entry->second.empty() ? "empty" : entry->second.c_str());
      changed_.push_back(option.name);
    }
  }

  /// Whether one of these options was changed when the run was resumed, or may have been.
  bool changed(std::initializer_list<std::string_view> names) const {
    return all_changed_ || std::any_of(names.begin(), names.end(), [&](std::string_view name) {
             return std::ranges::find(changed_, name) != changed_.end();
           });
  }

 private:
  struct Option {
    std::string name;
    Change change;
    std::function<std::string()> text;
    std::function<bool(const std::string&)> set;
    std::function<std::string()> toml;
  };
  static std::string key(const Option& option) { return "option." + option.name; }

  std::vector<Option> options_;
  std::vector<std::string> changed_;
  bool all_changed_ = false;
};

}  // namespace training
