// Files that are read at given places, and files that appear whole or not at all.
//
//     st::AtomicFile file("net.safetensors");     // writes net.safetensors.partial
//     file.write(bytes);
//     file.commit();                              // on disk, under its name; until then the old file stays
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
#include <system_error>
#include <utility>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

[[noreturn]] inline void file_failed(const std::filesystem::path& path, std::string_view what) {
  const std::string reason = std::error_code(errno, std::generic_category()).message();
  throw FileError(concat(path.string(), ": ", what, ": ", reason));
}

/// An open file that closes itself.
class FileDescriptor {
 public:
  explicit FileDescriptor(int number = -1) : number_(number) {}
  FileDescriptor(FileDescriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(number_, other.number_);
    return *this;
  }
  ~FileDescriptor() {
    if (number_ >= 0) ::close(number_);
  }
  int number() const { return number_; }
  /// Whether closing it went well.
  bool close() { return ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

}  // namespace detail

/// A regular file, open for reading.
class InputFile {
 public:
  /// Throws FileError when the file is not there, cannot be read, or is a folder, pipe or device.
  explicit InputFile(std::filesystem::path path) : path_(std::move(path)) {
    file_ = detail::FileDescriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe must not block
    if (file_.number() < 0) detail::file_failed(path_, "cannot be opened");
    struct stat status {};
    if (::fstat(file_.number(), &status) != 0) detail::file_failed(path_, "cannot be examined");
    if (!S_ISREG(status.st_mode)) throw FileError(concat(path_.string(), ": is not a regular file"));
    size_ = std::uint64_t(status.st_size);
  }

  const std::filesystem::path& path() const& { return path_; }
  std::filesystem::path path() const&& { return path(); }
  std::uint64_t size() const { return size_; }  ///< in bytes, when it was opened

  /// Fills `bytes` from the given place on. Throws FileError when the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ::ssize_t count = ::pread(file_.number(), bytes.data(), bytes.size(), ::off_t(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) detail::file_failed(path_, "cannot be read");
      if (count == 0)
        throw FileError(concat(path_.string(), ": ends at byte ", offset, ", wanted ", bytes.size(), " more"));
      bytes = bytes.subspan(std::size_t(count));
      offset += std::uint64_t(count);
    }
  }

 private:
  std::filesystem::path path_;
  detail::FileDescriptor file_;
  std::uint64_t size_ = 0;
};

/// The name under which commit(true) keeps the file that was there before.
inline std::filesystem::path previous_path(std::filesystem::path path) { return path += ".previous"; }

/// A new file, written beside its place under the name `path`.partial and put there by commit(). Whatever happens
/// before, a power cut included, the file that was at `path` stays as it was. Two writers to one path at a time are not
/// supported.
class AtomicFile {
 public:
  /// Throws FileError when the file cannot be made, as in a folder that is not there.
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)), partial_(path_) {
    partial_ += ".partial";
    file_ = detail::FileDescriptor(::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666));
    if (file_.number() < 0) detail::file_failed(partial_, "cannot be written");
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (!committed_) ::unlink(partial_.c_str());
  }

  /// Adds bytes at the end.
  void write(std::span<const std::byte> bytes) {
    write_at(end_, bytes);
    end_ += bytes.size();
  }

  /// Writes over bytes that are there already.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const ::ssize_t count = ::pwrite(file_.number(), bytes.data(), bytes.size(), ::off_t(offset));
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) detail::file_failed(partial_, "cannot be written");
      bytes = bytes.subspan(std::size_t(count));
      offset += std::uint64_t(count);
    }
  }

  /// Puts the file in its place, flushed to disk. keep_previous keeps the one it replaces as previous_path(path).
  void commit(bool keep_previous = false) {
    if (::fsync(file_.number()) != 0) detail::file_failed(partial_, "cannot be flushed to disk");
    if (!file_.close()) detail::file_failed(partial_, "cannot be closed");
    if (keep_previous && std::filesystem::exists(path_)) {
      // A second name for the old file, so that there is a whole file at `path` at every moment. Where the file system
      // has no hard links the old one is renamed, and for a moment only the previous name is there.
      const std::filesystem::path previous = previous_path(path_);
      ::unlink(previous.c_str());
      if (::link(path_.c_str(), previous.c_str()) != 0 && ::rename(path_.c_str(), previous.c_str()) != 0)
        detail::file_failed(previous, "the previous file cannot be kept");
    }
    if (::rename(partial_.c_str(), path_.c_str()) != 0) detail::file_failed(path_, "cannot be replaced");
    committed_ = true;
    const std::filesystem::path folder = path_.has_parent_path() ? path_.parent_path() : std::filesystem::path(".");
    const detail::FileDescriptor directory(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (directory.number() < 0 || (::fsync(directory.number()) != 0 && errno != EINVAL))
      detail::file_failed(folder, "the folder cannot be flushed to disk");
  }

 private:
  std::filesystem::path path_, partial_;
  detail::FileDescriptor file_;
  std::uint64_t end_ = 0;
  bool committed_ = false;
};

}  // namespace strata::inline STRATA_ABI
