// The directory of a tar archive (ustar, GNU's and pax): where each file's bytes lie. Nothing is unpacked, and nothing
// that a header says is believed before the file's length bears it out.
//
// Format: POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format".
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"

namespace strata::inline STRATA_ABI::detail {

/// What is wrong with an archive; who knows its path adds it.
struct BadTar : Error {
  using Error::Error;
};

struct TarEntry {
  std::string name;
  std::uint64_t offset = 0, size = 0;  // of its bytes in the archive
};

using TarBlock = std::array<char, 512>;

/// A field of digits: octal, or, where the first bit is set, a number of base 256. Nothing for what is neither.
inline std::optional<std::uint64_t> tar_number(std::string_view field) {
  std::uint64_t value = 0;
  if (!field.empty() && (static_cast<unsigned char>(field[0]) & 0x80) != 0) {
    if (static_cast<unsigned char>(field[0]) != 0x80) return std::nullopt;  // below 0, or beyond 64 bits
    for (const char digit : field.substr(1)) {
      if (value >> 56 != 0) return std::nullopt;
      value = value << 8 | static_cast<unsigned char>(digit);
    }
    return value;
  }
  std::size_t i = 0;
  while (i < field.size() && field[i] == ' ') ++i;
  const std::size_t first = i;
  for (; i < field.size() && field[i] >= '0' && field[i] <= '7'; ++i) {
    if (value >> 61 != 0) return std::nullopt;
    value = value << 3 | std::uint64_t(field[i] - '0');
  }
  if (i == first || (i < field.size() && field[i] != ' ' && field[i] != '\0')) return std::nullopt;
  return value;
}

inline std::string_view tar_text(std::string_view field) {
  return field.substr(0, std::min(field.find('\0'), field.size()));
}

inline bool tar_checksum_fits(const TarBlock& block) {
  const auto wanted = tar_number(std::string_view(block.data() + 148, 8));
  std::uint64_t sum = 0;
  std::int64_t as_signed = 0;  // as some old programs have it
  for (std::size_t i = 0; i < block.size(); ++i) {
    const char byte = i >= 148 && i < 156 ? ' ' : block[i];
    sum += static_cast<unsigned char>(byte);
    as_signed += static_cast<signed char>(byte);
  }
  return wanted && (*wanted == sum || std::int64_t(*wanted) == as_signed);
}

/// The records of a pax header: "LENGTH KEY=VALUE\n". Calls each(key, value). Throws BadTar.
template <class Each>
void each_pax_record(std::string_view text, Each&& each) {
  while (!text.empty()) {
    const std::size_t space = text.find(' ');
    std::size_t length = 0;
    for (std::size_t i = 0; i < std::min(space, text.size()); ++i) {
      if (text[i] < '0' || text[i] > '9' || i > 8) throw BadTar("a pax header's record has no length");
      length = 10 * length + std::size_t(text[i] - '0');
    }
    if (space == std::string_view::npos || space == 0 || length > text.size() || length < space + 3 ||
        text[length - 1] != '\n')
      throw BadTar("a pax header's record has a wrong length");
    const std::string_view record = text.substr(space + 1, length - space - 2);
    const std::size_t equals = record.find('=');
    if (equals == std::string_view::npos) throw BadTar("a pax header's record has no '='");
    each(record.substr(0, equals), record.substr(equals + 1));
    text.remove_prefix(length);
  }
}

/// The regular files of an archive of `size` bytes, which read(offset, to, count) reads. Folders, links and devices are
/// passed over. Throws BadTar for what is damaged, cut short, or has sparse files.
template <class Read>
std::vector<TarEntry> read_tar(std::uint64_t size, Read&& read) {
  constexpr std::uint64_t longest_extra = std::uint64_t{1} << 20;  // of a long name or a pax header
  std::vector<TarEntry> entries;
  std::string long_name;  // of the next file, where there is one
  std::optional<std::uint64_t> long_size;
  bool has_name = false;
  for (std::uint64_t at = 0;;) {
    TarBlock block;
    if (size - at < block.size())
      throw BadTar(
          concat("it ends at byte ", size, " without the blocks of zeros that end an archive: it was cut short"));
    read(at, block.data(), block.size());
    at += block.size();
    if (std::all_of(block.begin(), block.end(), [](char byte) { return byte == 0; })) return entries;
    if (!tar_checksum_fits(block))
      throw BadTar(concat("the header at byte ", at - block.size(), " is damaged, or this is no tar archive"));
    const std::string_view header(block.data(), block.size());
    const auto told = tar_number(header.substr(124, 12));
    const char type = header[156];
    // What is not a file has no bytes, whatever its size says: links of old archives bear their target's.
    const bool without_bytes = type >= '1' && type <= '6';
    std::uint64_t count = without_bytes ? 0 : told.value_or(~std::uint64_t{0});
    const bool extra = type == 'L' || type == 'K' || type == 'x' || type == 'g';
    if (long_size && !extra && !without_bytes) count = *long_size;
    if (count > size - at)
      throw BadTar(concat("the file at byte ", at - block.size(), " says that it has more bytes than the archive"));
    const std::uint64_t rest = (block.size() - count % block.size()) % block.size();
    if (extra) {
      if (count > longest_extra)
        throw BadTar(
            concat("the header at byte ", at - block.size(), " has ", count, " bytes, at most 1 MiB are read"));
      std::string text(std::size_t(count), '\0');
      read(at, text.data(), text.size());
      if (type == 'L') {
        long_name = tar_text(text);
        has_name = true;
      } else if (type == 'x') {
        each_pax_record(text, [&](std::string_view key, std::string_view value) {
          if (key == "path") {
            long_name = value;
            has_name = true;
          } else if (key == "size") {
            std::uint64_t number = 0;
            for (const char digit : value) {
              if (digit < '0' || digit > '9' || number > (~std::uint64_t{0} >> 4))
                throw BadTar("a pax header's size is no number");
              number = 10 * number + std::uint64_t(digit - '0');
            }
            if (value.empty()) throw BadTar("a pax header's size is no number");
            long_size = number;
          } else if (key.starts_with("GNU.sparse.")) {
            throw BadTar("it has sparse files, which are not read");
          }
        });
      }
    } else {
      if (type == 'S') throw BadTar("it has sparse files, which are not read");
      if (type == '0' || type == '\0' || type == '7') {
        std::string name = has_name ? long_name : std::string(tar_text(header.substr(0, 100)));
        if (const auto prefix = tar_text(header.substr(345, 155));
            !has_name && header.substr(257, 6) == std::string_view("ustar\0", 6) && !prefix.empty())
          name = concat(prefix, "/", name);
        if (name.empty() || name.find('\0') != std::string::npos)
          throw BadTar(concat("the file at byte ", at - block.size(), " has no name"));
        if (!name.ends_with('/'))
          entries.push_back({std::move(name), at, count});  // with a slash: a folder of an old archive
      }
      long_name.clear();
      long_size.reset();
      has_name = false;
    }
    if (rest > size - at - count) throw BadTar(concat("it ends at byte ", size, ", inside a file: it was cut short"));
    at += count + rest;
  }
}

}  // namespace strata::inline STRATA_ABI::detail
