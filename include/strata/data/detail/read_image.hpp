// Files to bytes and pictures to files, with the path in what is thrown.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <new>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/core/output_file.hpp"
#include "strata/data/detail/decode.hpp"
#include "strata/data/detail/encode.hpp"
#include "strata/data/detail/image_bytes.hpp"

namespace strata::inline STRATA_ABI::detail {

/// The first `limit` bytes of a regular file. When the first of them, a usual header's size, are there, inspect(them,
/// size of the file) may throw: nothing more is read then.
template <class Check>
std::vector<unsigned char> read_bytes(const std::filesystem::path& path, std::uintmax_t limit, Check inspect) {
  const auto failed = [&](const char* what) {
    return FileError(
        concat(path.string(), ": ", what, ": ", std::error_code(errno, std::generic_category()).message()));
  };
  struct Closed {
    int number;
    ~Closed() { ::close(number); }
  };
  const int number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe must not block
  if (number < 0 && errno == ENOENT) throw FileError(concat(path.string(), ": there is no such file"));
  if (number < 0) throw failed("it cannot be opened for reading");
  const Closed file{number};
  struct stat status {};
  if (::fstat(number, &status) != 0) throw failed("it cannot be examined");
  if (!S_ISREG(status.st_mode)) throw FileError(concat(path.string(), ": it is not a file"));
  const auto size = std::size_t(std::min(std::uintmax_t(status.st_size), limit));
  std::vector<unsigned char> bytes;
  const std::size_t start = std::min(size, usual_header);
  std::size_t done = 0;
  bool unchecked = true;
  for (const std::size_t wanted : {start, size}) {
    if (wanted == size) bytes.reserve(size + inflate_padding);  // a decoder may want that much behind it
    bytes.resize(wanted);
    while (done < wanted) {
      const ::ssize_t count = ::read(number, bytes.data() + done, wanted - done);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw failed("reading it failed");
      if (count == 0) throw FileError(concat(path.string(), ": reading it failed: it has become shorter"));
      done += std::size_t(count);
    }
    if (std::exchange(unchecked, false)) inspect(Bytes(bytes), std::uintmax_t(status.st_size));
  }
  return bytes;
}
inline std::vector<unsigned char> read_bytes(const std::filesystem::path& path, std::uintmax_t limit) {
  return read_bytes(path, limit, [](Bytes, std::uintmax_t) {});
}

/// Writes a file that holds the parts one after another.
inline void write_bytes(const std::filesystem::path& path, std::span<const Bytes> parts) {
  AtomicFile file(path);
  for (const Bytes bytes : parts) file.write(std::as_bytes(bytes));
  file.commit();
}

/// work(), with what is wrong with the image as a FileError with its path.
template <class Work>
auto with_path(const std::filesystem::path& path, const char* what, Work work) {
  try {
    return work();
  } catch (const BadImage& problem) {
    throw FileError(concat(path.string(), ": cannot ", what, " the image: ", problem.what()));
  } catch (const std::bad_alloc&) {
    throw FileError(concat(path.string(), ": cannot ", what, " the image: there is not enough memory"));
  }
}

/// The bytes of an image of at most so many pixels, which must have the part that is wanted. Of other files no more
/// than the header is read, where it has the usual size.
inline std::vector<unsigned char> read_image_bytes(const std::filesystem::path& path, std::int64_t max_pixels,
                                                   const ImagePart* wanted) {
  return read_bytes(path, std::numeric_limits<std::uintmax_t>::max(), [&](Bytes start, std::uintmax_t size) {
    if (size > std::uintmax_t(std::numeric_limits<int>::max())) throw BadImage("it is larger than 2 GiB");
    try {
      check_extents(read_structure(start, false), max_pixels, wanted);
    } catch (const TruncatedImage&) {
      if (size <= start.size()) throw;
    }
  });
}

inline void write_image(const std::filesystem::path& path, ImageFormat format, EncoderInput input) {
  with_path(path, "write", [&] {
    encode_image(format, std::move(input), [&](std::span<const Bytes> parts) { write_bytes(path, parts); });
  });
}

}  // namespace strata::inline STRATA_ABI::detail
