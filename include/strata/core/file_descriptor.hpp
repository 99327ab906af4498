// An open file of the system's, and what is said where it fails.
#pragma once

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <unistd.h>
#endif

#include <cerrno>
#include <filesystem>
#include <string_view>
#include <utility>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI::detail {

/// Throws FileError with the path and the reason that errno has.
[[noreturn]] void file_failed(const std::filesystem::path& path, std::string_view what);

#if __has_include(<unistd.h>)

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
  bool close() { return ::close(std::exchange(number_, -1)) == 0 || errno == EINTR; }

 private:
  int number_;
};

/// call(), again where a signal broke it off.
template <class Call>
auto uninterrupted(Call&& call) {
  auto result = call();
  for (int again = 0; result < 0 && errno == EINTR && again < 1000; ++again) result = call();
  return result;
}

inline FileDescriptor open_file(const std::filesystem::path& path, int flags, ::mode_t mode = 0) {
  return FileDescriptor(uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); }));
}

#endif

}  // namespace strata::inline STRATA_ABI::detail

#ifndef STRATA_COMPILED
#include "strata/core/output_file_impl.hpp"
#endif
