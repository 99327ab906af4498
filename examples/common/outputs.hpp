// Where a program that makes pictures of pictures writes: checked as a whole, before any work. Nothing it reads is written over,
// whatever the name: another spelling, a link, a folder given twice; and no two results get one name.
//
//     outputs::check({"a.jpg", "b.jpg"}, {"net.safetensors"}, {{"a.jpg", "out/a.png"}, {"b.jpg", "out/b.png"}}, overwrite);
#pragma once

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/data/image_file.hpp"

namespace outputs {

namespace fs = std::filesystem;
namespace st = strata;

struct Output {
  fs::path input, path;  // what it is made of, and where it goes
};

/// One name for each file: of a folder's device and number, and the file's own name in it.
inline std::string identity(const fs::path& path) {
  struct stat status {};
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (::stat(folder.c_str(), &status) != 0) return path.lexically_normal().string();
  return st::concat(status.st_dev, ":", status.st_ino, "/", path.filename().string());
}

/// Throws when a file of this name cannot be made: the name too long, its folder missing or not to be written to.
inline void check_place(const fs::path& path) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  std::error_code none;
  if (!fs::is_directory(folder, none)) throw st::FileError(st::concat(path.string(), ": there is no folder ", folder.string()));
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw st::FileError(st::concat(path.string(), ": the folder ", folder.string(), " cannot be written to"));
  const long longest = ::pathconf(folder.c_str(), _PC_NAME_MAX);
  const std::size_t length = path.filename().string().size();
  if (longest > 0 && length > std::size_t(longest))
    throw st::FileError(st::concat(path.string(), ": the name has ", length, " bytes, the folder ", folder.string(), " allows ",
                                   longest, "; choose a shorter one"));
}

/// Throws FileError unless every output can be written and none is one of the inputs, the other files the program reads, or
/// another output. The outputs' folders are there already.
inline void check(const std::vector<fs::path>& inputs, const std::vector<fs::path>& others, const std::vector<Output>& all,
                  bool overwrite) {
  std::map<std::pair<unsigned long long, unsigned long long>, fs::path> read;
  for (const auto* files : {&inputs, &others})
    for (const fs::path& file : *files) {
      struct stat status {};
      if (::stat(file.c_str(), &status) == 0) read.emplace(std::pair(status.st_dev, status.st_ino), file);
    }
  std::map<std::string, Output> written;
  for (const Output& output : all) {
    const std::string name = output.path.string();
    (void)st::detail::format_of_name(output.path);
    struct stat status {};
    const bool there = ::stat(output.path.c_str(), &status) == 0;
    if (there) {
      const auto same = read.find(std::pair(status.st_dev, status.st_ino));
      if (same != read.end() && same->second == output.input)
        throw st::FileError(st::concat(name, ": is the input itself; choose another output"));
      if (same != read.end())
        throw st::FileError(st::concat(name, ": is ", same->second.string(), ", which is read too; choose another output"));
      if (S_ISDIR(status.st_mode)) throw st::FileError(st::concat(name, ": is a folder, wanted a picture"));
    }
    const auto [other, is_new] = written.emplace(identity(output.path), output);
    if (!is_new && other->second.input == output.input)
      throw st::FileError(st::concat(name, ": is to be written twice; choose another name for one of them"));
    if (!is_new)
      throw st::FileError(st::concat(output.input.string(), ": would write ", name, ", as ", other->second.input.string(),
                                     " does; rename one of them, or do them one by one"));
    check_place(output.path);
    if (there && !overwrite)
      throw st::FileError(st::concat(name, ": is there already; choose another output, or give --overwrite"));
  }
}

/// Makes a folder for outputs. Throws FileError when it cannot be one, and when it is a folder that pictures are read from.
inline void make_folder(const fs::path& folder, const std::vector<fs::path>& input_folders) {
  std::error_code failure;
  for (const fs::path& input : input_folders)
    if (fs::equivalent(folder, input, failure))
      throw st::FileError(st::concat(folder.string(), ": is the folder of the inputs; choose another output"));
  failure.clear();
  fs::create_directories(folder, failure);
  if (!fs::is_directory(folder))
    throw st::FileError(st::concat(folder.string(), ": cannot be a folder, which several inputs want as output",
                                   failure ? ": " + failure.message() : ""));
}

}  // namespace outputs
