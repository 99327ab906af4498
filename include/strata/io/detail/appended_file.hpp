// A file that grows while a run goes on, and is read by others meanwhile: a log, TensorBoard's events. What was written
// stays; a program that is killed leaves at most a part of its last addition, which the next one that opens the file
// cuts off.
//
//     st::detail::AppendedFile file("log.txt", header);   // written whole, with the header, where it is not there
//     file.cut(whole_lines);
//     file.append("one more line\n");
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/file_descriptor.hpp"
#include "strata/core/output_file.hpp"
#include "strata/io/file.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

class AppendedFile {
 public:
  /// Throws FileError when the file can be neither made nor opened, and when it is a link, folder, pipe or device.
  AppendedFile(std::filesystem::path path, std::string_view header) : path_(std::move(path)) {
    std::error_code failure;
    if (std::filesystem::symlink_status(path_, failure).type() == std::filesystem::file_type::not_found)
      write_file(path_, header);
    file_ = open_file(path_, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK);
    if (file_.number() < 0) file_failed(path_, "cannot be opened to write at its end");
    struct stat status {};
    if (::fstat(file_.number(), &status) != 0) file_failed(path_, "cannot be examined");
    if (!S_ISREG(status.st_mode)) throw FileError(concat(path_.string(), ": is not a regular file"));
    size_ = std::uint64_t(status.st_size);
  }

  const std::filesystem::path& path() const& { return path_; }
  std::filesystem::path path() const&& { return path(); }
  std::uint64_t size() const { return size_; }

  /// Keeps the first `size` bytes. Throws FileError.
  void cut(std::uint64_t size) {
    if (size >= size_) return;
    if (uninterrupted([&] { return ::ftruncate(file_.number(), ::off_t(size)); }) != 0)
      file_failed(path_, "cannot be shortened");
    size_ = size;
  }

  /// Adds bytes at the end, or, where that fails, none. Throws FileError.
  void append(std::string_view bytes) {
    const std::uint64_t before = size_;
    for (std::string_view rest = bytes; !rest.empty();) {
      const ::ssize_t count = uninterrupted([&] { return ::write(file_.number(), rest.data(), rest.size()); });
      if (count <= 0) {
        const int reason = count < 0 ? errno : EIO;
        if (::ftruncate(file_.number(), ::off_t(before)) == 0) size_ = before;
        errno = reason;
        file_failed(path_, "cannot be written");
      }
      rest.remove_prefix(std::size_t(count));
      size_ += std::uint64_t(count);
    }
  }

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::uint64_t size_ = 0;
};

/// All bytes of a file of at most `most` bytes. Throws FileError.
inline std::string read_whole(const std::filesystem::path& path, std::uint64_t most = std::uint64_t{1} << 30) {
  const InputFile file(path);
  if (file.size() > most)
    throw FileError(concat(path.string(), ": has ", file.size(), " bytes, at most ", most, " are read"));
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
}

}}}  // namespace strata::STRATA_ABI::detail
