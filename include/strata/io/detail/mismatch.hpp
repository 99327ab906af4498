// What keeps a file and a network apart, for the text of an error.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI::detail {

class Mismatch {
 public:
  void missing(const std::string& what) { note(0, what); }
  void unexpected(const std::string& what) { note(1, what); }
  void different(const std::string& what) { note(2, what); }

  bool empty() const { return counts_ == std::array<std::size_t, 3>{}; }

  /// Throws FileError when anything was noted. `hint`: what to do about it.
  void throw_if_any(const std::filesystem::path& path, std::string_view wanted, const std::string& hint = {}) const {
    if (empty()) return;
    std::string text;
    for (std::size_t kind = 0; kind < entries_.size(); ++kind) {
      if (counts_[kind] == 0) continue;
      text += "\n  " + std::string(titles[kind]) + " (" + std::to_string(counts_[kind]) + "):";
      for (const std::string& entry : entries_[kind]) text += "\n    " + entry;
      if (counts_[kind] > most) text += "\n    and " + std::to_string(counts_[kind] - most) + " more";
    }
    throw FileError(path.string() + ": does not fit " + std::string(wanted) + "; nothing was changed." + text + hint);
  }

 private:
  static constexpr std::size_t most = 20;  // entries shown of each kind
  static constexpr std::array<std::string_view, 3> titles{"missing from the file", "unexpected in the file",
                                                          "different"};

  void note(std::size_t kind, const std::string& what) {
    if (counts_[kind]++ < most) entries_[kind].push_back(what);
  }

  std::array<std::vector<std::string>, 3> entries_;
  std::array<std::size_t, 3> counts_{};
};

}  // namespace strata::inline STRATA_ABI::detail
