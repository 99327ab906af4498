// Definitions of core/output_file.hpp and core/file_descriptor.hpp.
#pragma once

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/file_descriptor.hpp"
#include "strata/core/output_file.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// A short name that stands for one to which nothing can be added.
inline std::string brief_name(std::string_view name) {
  std::uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const char letter : name) hash = (hash ^ static_cast<unsigned char>(letter)) * 1099511628211u;
  return concat(".", hash);
}

/// The name beside `path` under which it is written.
inline std::filesystem::path partial_path(const std::filesystem::path& path, int attempt, bool brief) {
  std::string name = path.filename().string();
  if (brief) name = brief_name(name);
  name += attempt == 0 ? ".partial" : concat(".partial", attempt);
  return path.parent_path() / name;
}

[[noreturn]] STRATA_INLINE void file_failed(const std::filesystem::path& path, std::string_view what) {
  const std::string reason = std::error_code(errno, std::generic_category()).message();
  throw FileError(concat(path.string(), ": ", what, ": ", reason));
}

#if __has_include(<unistd.h>)

/// The number of the open file that a path such as /dev/stdout or /dev/fd/3 stands for, through links too; or -1.
inline int standard_stream(std::filesystem::path path) {
  for (int links = 0; links < 8; ++links) {
    const std::string& text = path.native();
    if (text == "/dev/stdout") return STDOUT_FILENO;
    if (text == "/dev/stderr") return STDERR_FILENO;
    for (const std::string_view folder : {"/dev/fd/", "/proc/self/fd/"})
      if (text.starts_with(folder) && text.size() > folder.size() && text.size() < folder.size() + 7 &&
          text.find_first_not_of("0123456789", folder.size()) == std::string::npos)
        return std::stoi(text.substr(folder.size()));
    std::error_code no_link;
    const std::filesystem::path target = std::filesystem::read_symlink(path, no_link);
    if (no_link) return -1;
    path = path.parent_path() / target;  // the target alone, where it begins at the root
  }
  return -1;
}

/// Whether an unfinished file was there under this name whose writer is dead (it held a lock on it), and is removed.
inline bool remove_abandoned(const std::filesystem::path& path) {
  const FileDescriptor old = open_file(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  if (old.number() < 0) return errno == ENOENT;
  struct stat opened {
  }, named{};
  if (::fstat(old.number(), &opened) != 0 || !S_ISREG(opened.st_mode) || opened.st_uid != ::geteuid()) return false;
  if (::flock(old.number(), LOCK_EX | LOCK_NB) != 0) return false;
  if (::lstat(path.c_str(), &named) != 0) return errno == ENOENT;  // the name may be another file's by now
  return named.st_ino == opened.st_ino && named.st_dev == opened.st_dev && ::unlink(path.c_str()) == 0;
}

inline void flush_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  const FileDescriptor directory = open_file(folder, O_RDONLY | O_DIRECTORY);
  if (directory.number() < 0 && errno == EACCES && ::access(folder.c_str(), R_OK) != 0) return;  // only root could
  if (directory.number() < 0 || (uninterrupted([&] { return ::fsync(directory.number()); }) != 0 && errno != EINVAL))
    file_failed(path, "is written, but its folder cannot be flushed to disk");
}

#endif

}  // namespace detail

STRATA_INLINE std::filesystem::path previous_path(const std::filesystem::path& path) {
  const std::string name = path.filename().string(), ending = ".previous";
  return path.parent_path() / ((name.size() + ending.size() > 255 ? detail::brief_name(name) : name) + ending);
}

#if __has_include(<unistd.h>)

class AtomicFile::Writer {
 public:
  explicit Writer(std::filesystem::path path) : path_(std::move(path)) {
    struct stat old {};
    if (const int stream = detail::standard_stream(path_); stream >= 0) {
      if (stream == STDOUT_FILENO) std::fflush(stdout);
      open_stream(detail::FileDescriptor(::dup(stream)));
      return;
    }
    const bool there = ::stat(path_.c_str(), &old) == 0;
    if (!there && errno != ENOENT && errno != ELOOP) detail::file_failed(path_, "cannot be written");
    if (there && S_ISDIR(old.st_mode)) throw FileError(concat(path_.string(), ": is a folder, wanted a file"));
    if (there && !S_ISREG(old.st_mode)) {
      open_stream(detail::open_file(path_, O_WRONLY | O_NOCTTY));
      return;
    }
    if (there) permissions_ = Permissions{old.st_mode & 0777, old.st_uid, old.st_gid};
    make_partial();
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }

  void write(std::span<const std::byte> bytes) {
    write_at(end_, bytes);
    end_ += bytes.size();
  }

  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    if (is_stream_) {
      if (held_.size() < offset + bytes.size()) held_.resize(offset + bytes.size());
      std::copy(bytes.begin(), bytes.end(), held_.begin() + std::ptrdiff_t(offset));
      return;
    }
    put(bytes, [&](std::span<const std::byte> rest) {
      return ::pwrite(file_.number(), rest.data(), rest.size(), ::off_t(offset + bytes.size() - rest.size()));
    });
  }

  void commit(bool keep_previous) {
    if (is_stream_) {
      put(held_, [&](std::span<const std::byte> rest) { return ::write(file_.number(), rest.data(), rest.size()); });
      if (!file_.close()) detail::file_failed(path_, "cannot be closed");
      return;
    }
    if (permissions_) set_permissions();
    if (detail::uninterrupted([&] { return ::fsync(file_.number()); }) != 0)
      detail::file_failed(path_, "cannot be flushed to disk");
    const detail::FileDescriptor lock(::dup(file_.number()));  // until it has its name
    if (!file_.close()) detail::file_failed(path_, "cannot be closed");
    if (keep_previous) keep_old();
    if (detail::uninterrupted([&] { return ::rename(partial_.c_str(), path_.c_str()); }) != 0)
      detail::file_failed(path_, "cannot be put in its place");
    partial_.clear();
    detail::flush_folder(path_);
  }

 private:
  struct Permissions {
    ::mode_t mode;
    ::uid_t user;
    ::gid_t group;
  };

  void open_stream(detail::FileDescriptor file) {
    file_ = std::move(file);
    is_stream_ = true;
    if (file_.number() < 0) detail::file_failed(path_, "cannot be opened for writing");
  }

  /// Makes a file that was not there, so that nothing is followed and nothing of others is written to, and locks it.
  void make_partial() {
    const ::mode_t mode = permissions_ ? 0600 : 0666;
    bool brief = false;
    for (int attempt = 0, tries = 0; tries < 2000; ++tries) {
      std::filesystem::path name = detail::partial_path(path_, attempt, brief);
      file_ = detail::open_file(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
      if (file_.number() < 0) {
        if (errno == ENAMETOOLONG && !brief)
          brief = true;
        else if (std::error_code none; errno == ENOENT && !std::filesystem::exists(path_.parent_path(), none))
          throw FileError(
              concat(path_.string(), ": cannot be written: there is no folder ", path_.parent_path().string()));
        else if (errno != EEXIST)
          detail::file_failed(path_, "cannot be written");
        else if (!detail::remove_abandoned(name))
          ++attempt;
        continue;
      }
      const bool examined = ::flock(file_.number(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
      struct stat made {};
      if (::fstat(file_.number(), &made) != 0) {
        const int reason = errno;
        ::unlink(name.c_str());
        errno = reason;
        detail::file_failed(path_, "cannot be examined");
      }
      if (examined || made.st_nlink == 0) {  // another writer takes it for an abandoned one, and away
        ++attempt;
        continue;
      }
      partial_ = std::move(name);
      return;
    }
    throw FileError(concat(path_.string(), ": cannot be written: there are files in the way, as ",
                           detail::partial_path(path_, 0, brief).string()));
  }

  /// Writes all bytes by put(rest), which says how many it took.
  template <class Put>
  void put(std::span<const std::byte> bytes, Put&& put) {
    while (!bytes.empty()) {
      const ::ssize_t count = detail::uninterrupted([&] { return put(bytes); });
      if (count == 0) errno = EIO;
      if (count <= 0) detail::file_failed(path_, "cannot be written");
      bytes = bytes.subspan(std::size_t(count));
    }
  }

  void set_permissions() {
    struct stat now {};
    if (::fstat(file_.number(), &now) != 0) detail::file_failed(path_, "cannot be examined");
    ::mode_t mode = permissions_->mode;
    if ((now.st_uid != permissions_->user || now.st_gid != permissions_->group) &&
        ::fchown(file_.number(), permissions_->user, permissions_->group) != 0 &&
        ::fchown(file_.number(), ::uid_t(-1), permissions_->group) != 0)
      mode &= ~::mode_t{0070} | (mode & 0007) << 3;  // what the group could do is not for another group
    if ((now.st_mode & 0777) != mode && ::fchmod(file_.number(), mode) != 0)
      detail::file_failed(path_, "cannot be given the permissions of the file before");
  }

  /// A second name for the old file, so that there is a whole file at `path` at every moment; where the file system has
  /// no hard links, a copy.
  void keep_old() {
    const std::filesystem::path previous = previous_path(path_);
    if (detail::uninterrupted([&] { return ::unlink(previous.c_str()); }) != 0 && errno != ENOENT)
      detail::file_failed(previous, "cannot be replaced");
    if (detail::uninterrupted([&] { return ::link(path_.c_str(), previous.c_str()); }) == 0 || errno == ENOENT) return;
    if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS && errno != EMLINK && errno != EXDEV)
      detail::file_failed(previous, "the file before cannot be kept");
    const detail::FileDescriptor old = detail::open_file(path_, O_RDONLY);
    if (old.number() < 0) detail::file_failed(path_, "cannot be opened");
    Writer copy(previous);
    std::vector<std::byte> bytes(1 << 16);
    while (true) {
      const ::ssize_t count = detail::uninterrupted([&] { return ::read(old.number(), bytes.data(), bytes.size()); });
      if (count < 0) detail::file_failed(path_, "cannot be read");
      if (count == 0) return copy.commit(false);
      copy.write(std::span(bytes).first(std::size_t(count)));
    }
  }

  std::filesystem::path path_, partial_;  // partial_: empty when there is nothing to remove
  detail::FileDescriptor file_;
  std::optional<Permissions> permissions_;  // of the file that is replaced
  std::uint64_t end_ = 0;
  bool is_stream_ = false;
  std::vector<std::byte> held_;  // of a stream, which is written in one go
};

#else

class AtomicFile::Writer {
 public:
  explicit Writer(std::filesystem::path path) : path_(std::move(path)) {
    for (int attempt = 0; attempt < 1000 && file_ == nullptr; ++attempt) {
      partial_ = detail::partial_path(path_, attempt, path_.filename().string().size() > 240);
      errno = 0;
      file_ = std::fopen(partial_.string().c_str(), "wbx");
      std::error_code none;
      if (file_ == nullptr && !std::filesystem::exists(partial_, none)) break;
    }
    if (file_ == nullptr) detail::file_failed(path_, "cannot be written");
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() {
    if (file_ != nullptr) std::fclose(file_);
    std::error_code none;
    if (!partial_.empty()) std::filesystem::remove(partial_, none);
  }
  void write(std::span<const std::byte> bytes) {
    errno = 0;
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size())
      detail::file_failed(path_, "cannot be written");
  }
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
    errno = 0;
    if (std::fseek(file_, long(offset), SEEK_SET) != 0) detail::file_failed(path_, "cannot be written");
    write(bytes);
    if (std::fseek(file_, 0, SEEK_END) != 0) detail::file_failed(path_, "cannot be written");
  }
  void commit(bool keep_previous) {
    errno = 0;
    if (std::fclose(std::exchange(file_, nullptr)) != 0) detail::file_failed(path_, "cannot be written");
    std::error_code failure;
    if (keep_previous && std::filesystem::exists(path_))
      std::filesystem::copy_file(path_, previous_path(path_), std::filesystem::copy_options::overwrite_existing,
                                 failure);
    if (!failure) std::filesystem::rename(partial_, path_, failure);
    if (failure) throw FileError(concat(path_.string(), ": cannot be put in its place: ", failure.message()));
    partial_.clear();
  }

 private:
  std::filesystem::path path_, partial_;
  std::FILE* file_ = nullptr;
};

#endif

STRATA_INLINE AtomicFile::AtomicFile(std::filesystem::path path) : writer_(std::make_unique<Writer>(std::move(path))) {}
STRATA_INLINE AtomicFile::~AtomicFile() = default;
STRATA_INLINE void AtomicFile::write(std::span<const std::byte> bytes) { writer_->write(bytes); }
STRATA_INLINE void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  writer_->write_at(offset, bytes);
}
STRATA_INLINE void AtomicFile::commit(bool keep_previous) { writer_->commit(keep_previous); }

STRATA_INLINE void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}
STRATA_INLINE void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace strata::inline STRATA_ABI
