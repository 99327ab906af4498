// Files that are read at given places, and whole. core/output_file.hpp writes them.
//
//     st::InputFile file("net.safetensors");
//     file.read(offset, bytes);
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "strata/core/error.hpp"
#include "strata/core/file_descriptor.hpp"
#include "strata/core/output_file.hpp"

namespace strata::inline STRATA_ABI {

/// A regular file, open for reading.
class InputFile {
 public:
  /// Throws FileError when the file is not there, cannot be read, or is a folder, pipe or device.
  explicit InputFile(std::filesystem::path path);

  const std::filesystem::path& path() const& { return path_; }
  std::filesystem::path path() const&& { return path(); }
  std::uint64_t size() const { return size_; }  ///< in bytes, when it was opened

  /// Fills `bytes` from the given place on. Throws FileError when the file ends before.
  void read(std::uint64_t offset, std::span<std::byte> bytes) const;

 private:
  std::filesystem::path path_;
  detail::FileDescriptor file_;
  std::uint64_t size_ = 0;
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/file_impl.hpp"
#endif
