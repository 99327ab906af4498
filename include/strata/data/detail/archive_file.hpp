// A file that is read at given places, from several threads.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"

namespace strata::inline STRATA_ABI::detail {

class ArchiveFile {
 public:
  /// Throws FileError when it is not there, or is no regular file.
  explicit ArchiveFile(std::filesystem::path path)
      : path_(std::move(path)), file_(open_file(path_, O_RDONLY | O_NONBLOCK)) {  // a pipe must not block
    if (file_.number() < 0) file_failed(path_, "cannot be opened");
    struct stat status {};
    if (::fstat(file_.number(), &status) != 0) file_failed(path_, "cannot be examined");
    if (!S_ISREG(status.st_mode)) throw FileError(concat(path_.string(), ": is not a regular file"));
    size_ = std::uint64_t(status.st_size);
  }

  std::uint64_t size() const { return size_; }

  void read(std::uint64_t offset, char* to, std::size_t count) const {
    while (count > 0) {
      const ::ssize_t done = uninterrupted([&] { return ::pread(file_.number(), to, count, ::off_t(offset)); });
      if (done < 0) file_failed(path_, "cannot be read");
      if (done == 0) throw FileError(concat(path_.string(), ": ends at byte ", offset, ", wanted ", count, " more"));
      to += done;
      offset += std::uint64_t(done);
      count -= std::size_t(done);
    }
  }

 private:
  std::filesystem::path path_;
  FileDescriptor file_;
  std::uint64_t size_ = 0;
};

}  // namespace strata::inline STRATA_ABI::detail
