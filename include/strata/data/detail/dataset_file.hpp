// The files of published data sets: where they lie, and what is said when one is missing or damaged.
#pragma once

#include <cstdint>
#include <filesystem>
#include <new>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/data/detail/image_bytes.hpp"
#include "strata/data/detail/read_image.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The first of the paths below `root` that is there. Throws FileError, which names them all and the data set, when
/// none is.
inline std::filesystem::path find_dataset_file(std::string_view who, const std::filesystem::path& root,
                                               const std::vector<std::filesystem::path>& below,
                                               std::string_view origin) {
  if (root.empty()) throw ValueError(concat(who, ": .root is empty, wanted the folder with the data set's files"));
  std::string looked_for;
  for (const std::filesystem::path& path : below) {
    std::error_code ignored;
    if (std::filesystem::exists(root / path, ignored)) return root / path;
    looked_for += concat(looked_for.empty() ? "" : ", ", path.string());
  }
  throw FileError(concat(root.string(), ": there is none of ", looked_for, " in this folder. The files are those of ",
                         origin, "; get them and give their folder as ", who, "'s .root"));
}

/// parse(bytes) of the file. What is wrong with it, or that memory does not hold it, is a FileError with its path.
template <class Parse>
auto parse_dataset_file(const std::filesystem::path& path, Parse parse) {
  constexpr std::uintmax_t limit = std::uintmax_t{1} << 31;
  try {
    std::vector<unsigned char> bytes = read_bytes(path, limit);
    if (bytes.size() == limit) throw BadImage("it is larger than 2 GiB");
    return parse(std::move(bytes));
  } catch (const BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot read the data set: ", problem.what()));
  } catch (const std::bad_alloc&) {
    throw FileError(concat(path.string(), ": cannot read the data set: there is not enough memory"));
  }
}

}  // namespace strata::inline STRATA_ABI::detail
