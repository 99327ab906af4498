// Where a program that makes pictures of pictures writes: checked as a whole, before any work. Nothing it reads is
// written over, whatever the name: another spelling, a link, a folder given twice; and no two results get one name.
//
//     outputs::check_apart({"a.jpg", "b.jpg", "net.safetensors"}, {{"a.jpg", "out/a.png"}, {"b.jpg", "out/b.png"}});
//     outputs::check_place("out/a.png", overwrite);
#pragma once

#include <sys/stat.h>
#include <unistd.h>

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

/// Whether it is a folder; not when its name is too long to be asked about.
inline bool is_folder(const fs::path& path) {
  std::error_code none;
  return fs::is_directory(path, none);
}

/// One name for each file: of a folder's device and number, and the file's own name in it.
inline std::string identity(const fs::path& path) {
  struct stat status {};
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (::stat(folder.c_str(), &status) != 0) return path.lexically_normal().string();
  return st::concat(status.st_dev, ":", status.st_ino, "/", path.filename().string());
}

/// Throws FileError unless a picture can be written there: the name's ending and length, its folder, what is there
/// already.
inline void check_place(const fs::path& path, bool overwrite) {
  (void)st::detail::format_of_name(path);
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!is_folder(folder)) throw st::FileError(st::concat(path.string(), ": there is no folder ", folder.string()));
  if (::access(folder.c_str(), W_OK | X_OK) != 0)
    throw st::FileError(st::concat(path.string(), ": the folder ", folder.string(), " cannot be written to"));
  const long longest = ::pathconf(folder.c_str(), _PC_NAME_MAX);
  const std::size_t length = path.filename().string().size();
  if (longest > 0 && length > std::size_t(longest))
    throw st::FileError(st::concat(path.string(), ": the name has ", length, " bytes, the folder ", folder.string(),
                                   " allows ", longest, "; choose a shorter one"));
  if (is_folder(path)) throw st::FileError(st::concat(path.string(), ": is a folder, wanted a picture"));
  std::error_code none;
  if (!overwrite && fs::exists(fs::symlink_status(path, none)))
    throw st::FileError(st::concat(path.string(), ": is there already; choose another output, or give --overwrite"));
}

/// Throws FileError when an output is one of the files that the program reads, under whatever name, or another output.
inline void check_apart(const std::vector<fs::path>& read, const std::vector<Output>& outputs) {
  std::map<std::pair<unsigned long long, unsigned long long>, fs::path> files;
  struct stat status {};
  for (const fs::path& file : read)
    if (::stat(file.c_str(), &status) == 0) files.emplace(std::pair(status.st_dev, status.st_ino), file);
  std::map<std::string, Output> written;
  for (const Output& output : outputs) {
    const std::string name = output.path.string();
    if (::stat(output.path.c_str(), &status) == 0) {
      const auto same = files.find(std::pair(status.st_dev, status.st_ino));
      if (same != files.end() && same->second == output.input)
        throw st::FileError(st::concat(name, ": is the input itself; choose another output"));
      if (same != files.end())
        throw st::FileError(
            st::concat(name, ": is ", same->second.string(), ", which is read too; choose another output"));
    }
    const auto [other, is_new] = written.emplace(identity(output.path), output);
    if (is_new) continue;
    if (other->second.input == output.input)
      throw st::FileError(st::concat(name, ": is to be written twice; choose another name for one of them"));
    throw st::FileError(st::concat(output.input.string(), ": would write ", name, ", as ", other->second.input.string(),
                                   " does; rename one of them, or do them one by one"));
  }
}

/// Throws FileError when the folder that a training run writes to is one that it reads images from: its pictures would
/// become images of the next run, or write over one.
inline void check_run_folder(const fs::path& folder, const std::vector<std::string>& image_folders) {
  std::error_code none;
  for (const std::string& images : image_folders)
    if (fs::equivalent(folder, images, none))
      throw st::FileError(st::concat("--checkpoint-dir ", folder.string(), ": is the folder of the images ", images,
                                     "; choose another"));
}

/// Makes a folder for outputs. Throws FileError when it cannot be one, and when it is a folder that pictures are read
/// from.
inline void make_folder(const fs::path& folder, const std::vector<fs::path>& input_folders) {
  std::error_code failure;
  for (const fs::path& input : input_folders)
    if (fs::equivalent(folder, input, failure))
      throw st::FileError(st::concat(folder.string(), ": is the folder of the inputs; choose another output"));
  failure.clear();
  fs::create_directories(folder, failure);
  if (!is_folder(folder))
    throw st::FileError(st::concat(folder.string(), ": cannot be a folder, which several inputs want as output",
                                   failure ? ": " + failure.message() : ""));
}

}  // namespace outputs
