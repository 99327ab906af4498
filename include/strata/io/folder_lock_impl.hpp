// Definitions of io/folder_lock.hpp.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <ctime>
#include <filesystem>
#include <string>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/io/folder_lock.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE FolderLock::FolderLock(std::filesystem::path folder)
    : folder_(std::move(folder)), path_(folder_ / "run.lock") {
  for (int tries = 0; tries < 100; ++tries) {
    file_ = detail::open_file(path_, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (file_.number() < 0 && errno == ENOENT) throw FileError(concat(folder_.string(), ": there is no such folder"));
    if (file_.number() < 0) detail::file_failed(path_, "cannot be made, so this folder cannot be worked in");
    struct stat opened {
    }, named{};
    if (::fstat(file_.number(), &opened) != 0) detail::file_failed(path_, "cannot be examined");
    if (!S_ISREG(opened.st_mode)) throw FileError(concat(path_.string(), ": is not a regular file"));
    if (detail::uninterrupted([&] { return ::flock(file_.number(), LOCK_EX | LOCK_NB); }) != 0) {
      if (errno == EWOULDBLOCK)
        throw FileError(concat(folder_.string(), ": another run works in this folder (", holder(),
                               "); wait for it, stop it, or choose another folder"));
      if (errno != ENOLCK && errno != ENOSYS && errno != ENOTSUP && errno != EINVAL)
        detail::file_failed(path_, "cannot be locked");
      return;
    }
    // Who held it before may have removed the file meanwhile.
    if (::lstat(path_.c_str(), &named) == 0 && named.st_ino == opened.st_ino && named.st_dev == opened.st_dev) {
      held_ = true;
      process_ = ::getpid();
      say_who();
      return;
    }
  }
  throw FileError(concat(path_.string(), ": comes and goes, and cannot be locked"));
}

STRATA_INLINE FolderLock::~FolderLock() {
  if (held_ && ::getpid() == process_) ::unlink(path_.c_str());  // not by a child that has the descriptor too
}

STRATA_INLINE void FolderLock::say_who() const {
  std::array<char, 256> host{}, since{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"an unknown host"};
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::strftime(since.data(), since.size(), "%Y-%m-%d %H:%M:%S UTC", ::gmtime_r(&now, &parts));
  const std::string text = concat("process ", process_, " on ", host.data(), " since ", since.data());
  const auto written = detail::uninterrupted([&] {
    const int cut = ::ftruncate(file_.number(), 0);
    return cut != 0 ? ::ssize_t(cut) : ::pwrite(file_.number(), text.data(), text.size(), 0);
  });
  if (written == ::ssize_t(text.size())) return;
  const int reason = errno;
  ::unlink(path_.c_str());
  errno = written < 0 ? reason : ENOSPC;
  detail::file_failed(path_, "cannot be written");
}

STRATA_INLINE std::string FolderLock::holder() const {
  std::array<char, 512> text{};
  const ::ssize_t count = ::pread(file_.number(), text.data(), text.size() - 1, 0);
  return count > 0 ? std::string(text.data(), std::size_t(count)) : "which has not said who it is";
}

}  // namespace strata::inline STRATA_ABI
