// The one way in which files are written: whole or not at all.
//
//     st::write_file("log.csv", text);
//     st::AtomicFile file("net.safetensors");     // writes net.safetensors.partial
//     file.write(bytes);
//     file.commit();                              // on disk, under its name; until then the old file stays
//
// The bytes go to a new file beside the old one, which takes its place when they are on the disk. The permissions of
// the old file are kept, and its owner where that is allowed. A symbolic link at the path is replaced by the file; what
// it names is left alone. A path that is, or leads to, a pipe, a terminal or a device (/dev/stdout, say) gets the bytes
// directly. What goes wrong is a FileError with the path and the system's reason, and leaves nothing behind; what a
// killed program left behind goes with the next writing of the same file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI {

/// The name under which commit(true) keeps the file that was there before.
std::filesystem::path previous_path(const std::filesystem::path& path);

/// A new file, written beside its place and put there by commit(). Whatever happens before, a power cut included, the
/// file that was at `path` stays as it was. Several writers to one path do not disturb one another: the last one stays.
/// Where there is no unistd.h it is written by the standard library alone, without locks, permissions and flushes.
class AtomicFile {
 public:
  /// Throws FileError when the file cannot be made, as in a folder that is not there.
  explicit AtomicFile(std::filesystem::path path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  /// Adds bytes at the end.
  void write(std::span<const std::byte> bytes);
  /// Writes over bytes that are there already.
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  /// Puts the file in its place, flushed to disk. keep_previous keeps the one it replaces as previous_path(path).
  void commit(bool keep_previous = false);

 private:
  class Writer;
  std::unique_ptr<Writer> writer_;
};

/// Writes a file that holds these bytes and no others, as AtomicFile does.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/core/output_file_impl.hpp"
#endif
