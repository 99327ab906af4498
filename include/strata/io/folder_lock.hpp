// One program at a time in a folder.
//
//     const st::FolderLock lock("out");    // or an error that says who works there
//
// The lock is the system's (flock) on the file run.lock of the folder, so it goes with the process, however that ends;
// what is left of the file after a kill or a power cut locks nobody out. The file says who holds the lock. On NFS the
// lock holds among all machines that mount the folder; one that crashes keeps it until the server notices. Where a file
// system has no locks there is none, and held() says so.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>

#include "strata/core/error.hpp"
#include "strata/core/file_descriptor.hpp"

namespace strata::inline STRATA_ABI {

class FolderLock {
 public:
  /// Throws FileError where another process holds the lock, and where the file cannot be made: in a folder that is not
  /// there, or is for reading only.
  explicit FolderLock(std::filesystem::path folder);
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;
  ~FolderLock();

  bool held() const { return held_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  void say_who() const;

  std::string holder() const;

  std::filesystem::path folder_, path_;
  detail::FileDescriptor file_;
  ::pid_t process_ = 0;
  bool held_ = false;
};

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/folder_lock_impl.hpp"
#endif
