// Definitions of io/file.hpp.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/io/file.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE InputFile::InputFile(std::filesystem::path path) : path_(std::move(path)) {
  file_ = detail::FileDescriptor(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));  // a pipe must not block
  if (file_.number() < 0) detail::file_failed(path_, "cannot be opened");
  struct stat status {};
  if (::fstat(file_.number(), &status) != 0) detail::file_failed(path_, "cannot be examined");
  if (!S_ISREG(status.st_mode)) throw FileError(concat(path_.string(), ": is not a regular file"));
  size_ = std::uint64_t(status.st_size);
}

STRATA_INLINE void InputFile::read(std::uint64_t offset, std::span<std::byte> bytes) const {
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

}  // namespace strata::inline STRATA_ABI
