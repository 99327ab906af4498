// A file in memory for readers that take a path: the same one, filled anew for each input.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>

namespace fuzz {

/// The path of a file with these bytes, until the next call.
inline std::filesystem::path memory_file(const std::uint8_t* bytes, std::size_t size) {
  static const int file = ::memfd_create("input", 0);
  if (file < 0 || ::ftruncate(file, off_t(size)) != 0) std::abort();
  if (size > 0 && ::pwrite(file, bytes, size, 0) != ssize_t(size)) std::abort();
  return "/proc/self/fd/" + std::to_string(file);
}

}  // namespace fuzz
