// Definitions of io/safetensors.hpp.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/output_file.hpp"
#include "strata/io/crc32.hpp"
#include "strata/io/detail/elements.hpp"
#include "strata/io/safetensors.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

inline constexpr std::uint64_t largest_header = 100'000'000;  // as in the reference implementation

/// A checksummed file has this key in its metadata with eight hexadecimal digits: the CRC-32C of the whole file,
/// computed with those digits as zeros.
inline constexpr std::string_view checksum_key = "strata.checksum";
inline constexpr std::string_view checksum_zeros = "00000000";

/// Where the digits are in the header's text; npos when there is no checksum.
inline std::size_t find_checksum(std::string_view header) {
  const std::string before = "\"" + std::string(checksum_key) + "\":\"";
  const std::size_t at = header.find(before);  // quotes inside a string are escaped, so this is the key itself
  return at == std::string_view::npos ? at : at + before.size();
}

inline std::string hex(std::uint32_t value) {
  std::string text(8, '0');
  for (std::size_t i = 0; i < 8; ++i) text[i] = "0123456789abcdef"[(value >> (28 - 4 * i)) & 15u];
  return text;
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace detail

STRATA_INLINE SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  std::array<std::byte, 8> prefix{};
  if (file_.size() < prefix.size()) fail(concat("has ", file_.size(), " bytes, too few for a safetensors file"));
  file_.read(0, prefix);
  const auto header_bytes = std::bit_cast<std::uint64_t>(prefix);
  if (header_bytes > file_.size() - prefix.size())
    fail(concat("its header takes ", header_bytes, " bytes, the file has ", file_.size() - prefix.size(),
                ": not a safetensors file, or cut short"));
  if (header_bytes > detail::largest_header)
    fail(concat("its header takes ", header_bytes, " bytes, the limit is ", detail::largest_header));
  header_text_.resize(std::size_t(header_bytes));
  file_.read(prefix.size(), std::as_writable_bytes(std::span(header_text_)));
  data_begin_ = prefix.size() + header_bytes;
  header_ = parse_safetensors_header(header_text_, file_.size() - data_begin_, path.string());
  for (const TensorInfo& tensor : header_.tensors) index_.emplace(tensor.name, &tensor);
}

STRATA_INLINE const TensorInfo* SafetensorsFile::find(const std::string& name) const& {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : found->second;
}

STRATA_INLINE AnyTensor SafetensorsFile::read_like(const TensorInfo& tensor, const AnyTensor& like) const {
  if (!tensor.unreadable.empty()) fail(concat("tensor ", detail::shown(tensor.name), " ", tensor.unreadable));
  const DType type = detail::dtype_of(like);
  if (type == DType::i64 && !detail::is_integer(tensor.dtype))
    fail(concat("tensor ", detail::shown(tensor.name), " holds ", detail::row_of(tensor.dtype).name,
                ", wanted whole numbers"));
  std::vector<std::byte> bytes(tensor.end - tensor.begin);
  file_.read(data_begin_ + tensor.begin, bytes);
  return detail::tensor_from(std::move(bytes), tensor.dtype, tensor.shape, like);
}

STRATA_INLINE void SafetensorsFile::verify_checksum() const {
  const std::size_t at = detail::find_checksum(header_text_);
  constexpr std::size_t digits = detail::checksum_zeros.size();
  if (at == std::string::npos || header_text_.size() - at < digits) fail("has no checksum");
  std::string header = header_text_;
  header.replace(at, digits, detail::checksum_zeros);
  const std::uint64_t size = header.size();
  const auto length = std::bit_cast<std::array<std::byte, 8>>(size);
  std::uint32_t crc = crc32c(detail::bytes_of(header), crc32c(length));
  std::vector<std::byte> chunk(1 << 16);
  for (std::uint64_t offset = data_begin_; offset < file_.size();) {
    const std::size_t count = std::size_t(std::min<std::uint64_t>(chunk.size(), file_.size() - offset));
    file_.read(offset, std::span(chunk).first(count));
    crc = crc32c(std::span(chunk).first(count), crc);
    offset += count;
  }
  if (header_text_.compare(at, digits, detail::hex(crc)) != 0)
    fail(concat("is damaged: its checksum is ", detail::hex(crc), ", wanted ", header_text_.substr(at, digits)));
}

STRATA_INLINE bool SafetensorsFile::has_checksum() const {
  return detail::find_checksum(header_text_) != std::string::npos;
}

STRATA_INLINE void SafetensorsFile::fail(std::string_view what) const {
  throw FileError(concat(path().string(), ": ", what));
}

STRATA_INLINE void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                                     const Metadata& metadata, const WriteOptions& options) {
  SafetensorsHeader header{.tensors = {}, .metadata = metadata};
  if (options.checksum) header.metadata[std::string(detail::checksum_key)] = detail::checksum_zeros;
  std::vector<const AnyTensor*> order;
  TensorIndex names;
  names.emplace("__metadata__", nullptr);
  std::uint64_t end = 0;
  for (const int width : {8, 4})
    for (const NamedTensor& tensor : tensors) {
      const DType type = detail::dtype_of(*tensor.tensor);
      if (detail::row_of(type).bytes != width) continue;
      if (!names.emplace(tensor.name, nullptr).second)
        throw ValueError(concat("write_safetensors: the name '", tensor.name, "' is taken"));
      const Shape& shape = detail::shape_of(*tensor.tensor);
      const std::uint64_t begin = std::exchange(end, end + std::uint64_t(shape.size() * width));
      header.tensors.push_back({tensor.name, type, shape, begin, end});
      order.push_back(tensor.tensor);
    }
  const std::string text = format_safetensors_header(header);
  const std::uint64_t size = text.size();
  const auto length = std::bit_cast<std::array<std::byte, 8>>(size);

  AtomicFile file(path);
  std::uint32_t crc = 0;
  const auto write = [&](std::span<const std::byte> bytes) {
    file.write(bytes);
    if (options.checksum) crc = crc32c(bytes, crc);
  };
  write(length);
  write(detail::bytes_of(text));
  std::vector<std::byte> bytes;
  for (const AnyTensor* tensor : order) {
    const Shape& shape = detail::shape_of(*tensor);
    const int width = detail::row_of(detail::dtype_of(*tensor)).bytes;
    bytes.resize(std::size_t(shape.size() * width));
    const AnyTensor on_host = detail::move_to(*tensor, Device::cpu());  // the same handle for what is there already
    detail::reorder(shape, width, detail::bytes_of(on_host), bytes.data(), true);
    write(bytes);
  }
  if (options.checksum) file.write_at(length.size() + detail::find_checksum(text), detail::bytes_of(detail::hex(crc)));
  file.commit(options.keep_previous);
}

}  // namespace strata::inline STRATA_ABI
