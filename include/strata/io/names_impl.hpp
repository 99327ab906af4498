// Definitions of io/names.hpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/io/names.hpp"

namespace strata::inline STRATA_ABI::detail {

STRATA_INLINE bool begins(std::string_view name, std::string_view beginning) {
  return beginning.empty() ||
         (name.starts_with(beginning) && (name.size() == beginning.size() || name[beginning.size()] == '.'));
}

STRATA_INLINE std::string renamed(const std::string& name, const std::vector<Rename>& rules,
                                  std::vector<std::size_t>& count) {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (!begins(name, rules[i].from)) continue;
    ++count[i];
    std::string rest = name.substr(rules[i].from.size());
    if (rest.starts_with('.')) rest.erase(0, 1);
    return rest.empty() ? rules[i].to : join(rules[i].to, rest);
  }
  return name;
}

STRATA_INLINE void check_used(const std::filesystem::path& path, std::string_view option, std::string_view rule,
                              std::size_t count) {
  if (count == 0)
    throw ValueError(concat(path.string(), ": no name begins with '", rule, "', which the option ", option, " gives"));
}

}  // namespace strata::inline STRATA_ABI::detail
