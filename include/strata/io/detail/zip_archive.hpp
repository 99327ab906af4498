// Reads zip archives whose entries are stored without compression, as torch.save writes them. Others are listed too.
//
// The list of entries at the archive's end says where everything is; what else lies between the entries is not looked
// at. Nothing is trusted: every offset is checked against the file's length, no two entries may share bytes (or reading
// all of them could take any multiple of the file's length), nothing is ever decompressed, the list takes 64 MB at
// most. Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3 (zip64).
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "strata/core/crc32.hpp"
#include "strata/io/file.hpp"
#include "strata/io/tensor_info.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// A whole number of little-endian bytes.
template <class T>
T little_endian(std::span<const std::byte> bytes, std::size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

class ZipArchive {
 public:
  struct Entry {
    std::string name;
    std::uint64_t begin = 0, size = 0;  ///< its bytes in the file
    std::uint32_t crc = 0;              ///< 0 when the writer computed none
    bool stored = true;                 ///< false: its bytes are compressed or encrypted
  };

  /// Reads the list of entries. Throws FileError when there is none or it cannot be trusted.
  explicit ZipArchive(const InputFile& file) : file_(&file) {
    const Place list = find_list();
    if (list.size > largest_list)
      fail(concat("its list of entries takes ", list.size, " bytes, the limit is ", largest_list));
    std::vector<std::byte> bytes(std::size_t(list.size));
    file.read(list.begin, bytes);
    std::span<const std::byte> rest = bytes;
    std::vector<Range> ranges;
    while (!rest.empty()) rest = rest.subspan(read_entry(rest, list.begin, ranges));
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < ranges.size(); ++i)
      if (ranges[i].begin < ranges[i - 1].end) fail(concat("two of its entries share the bytes at ", ranges[i].begin));
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) { return a.name < b.name; });
    for (std::size_t i = 1; i < entries_.size(); ++i)
      if (entries_[i].name == entries_[i - 1].name) fail(concat("has two entries named ", shown(entries_[i].name)));
  }

  /// In the order of their names.
  const std::vector<Entry>& entries() const { return entries_; }

  /// The entry of that name; null when there is none.
  const Entry* find(std::string_view name) const {
    const auto found =
        std::lower_bound(entries_.begin(), entries_.end(), name,
                         [](const Entry& entry, std::string_view wanted) { return entry.name < wanted; });
    return found == entries_.end() || found->name != name ? nullptr : &*found;
  }

  /// Reads the entry and throws FileError when its bytes are not those that were written.
  void verify_entry(const Entry& entry) const {
    if (entry.crc == 0 || !entry.stored) return;
    std::uint32_t crc = 0;
    std::vector<std::byte> chunk(std::size_t(std::min<std::uint64_t>(entry.size, 1 << 16)));
    for (std::uint64_t done = 0; done < entry.size;) {
      const auto part = std::span(chunk).first(std::size_t(std::min<std::uint64_t>(chunk.size(), entry.size - done)));
      file_->read(entry.begin + done, part);
      crc = crc32(part, crc);
      done += part.size();
    }
    if (crc != entry.crc) fail(concat("is damaged: the checksum of its entry ", shown(entry.name), " does not agree"));
  }

 private:
  struct Place {
    std::uint64_t begin, size;
  };
  /// Bytes of an entry, its own header included.
  struct Range {
    std::uint64_t begin, end;
  };
  static constexpr std::uint64_t largest_list = 64'000'000;
  static constexpr std::uint32_t entry_mark = 0x02014b50, local_mark = 0x04034b50, end_mark = 0x06054b50,
                                 end64_mark = 0x06064b50, locator_mark = 0x07064b50;
  static constexpr std::uint32_t in_zip64 = 0xFFFFFFFF;  // "look in the zip64 record"

  [[noreturn]] void fail(std::string_view what) const {
    throw FileError(concat(file_->path().string(), ": not a valid zip archive: ", what));
  }

  /// Throws unless `size` bytes at `begin` lie before `end`.
  void want_inside(std::uint64_t begin, std::uint64_t size, std::uint64_t end, std::string_view what) const {
    if (begin > end || size > end - begin)
      fail(
          concat(what, " of ", size, " bytes at byte ", begin, " is not inside the first ", end, " bytes: cut short?"));
  }

  /// Where the list of entries is, from the record at the end of the file, which a comment may follow.
  Place find_list() const {
    constexpr std::size_t fixed = 22, longest_comment = 65535;
    if (file_->size() < fixed) fail("it is too short");
    std::vector<std::byte> tail(std::size_t(std::min<std::uint64_t>(file_->size(), fixed + longest_comment)));
    const std::uint64_t tail_begin = file_->size() - tail.size();
    file_->read(tail_begin, tail);
    for (std::size_t at = tail.size() - fixed + 1; at-- > 0;) {
      if (little_endian<std::uint32_t>(tail, at) != end_mark) continue;
      // not the comment's length
      if (little_endian<std::uint16_t>(tail, at + 20) != tail.size() - at - fixed) continue;
      const std::uint64_t end = tail_begin + at;
      Place list{little_endian<std::uint32_t>(tail, at + 16), little_endian<std::uint32_t>(tail, at + 12)};
      if (list.begin == in_zip64 || list.size == in_zip64) list = find_list64(end);
      want_inside(list.begin, list.size, end, "the list of entries");
      return list;
    }
    fail("it has no list of entries: cut short?");
  }

  Place find_list64(std::uint64_t end) const {
    constexpr std::uint64_t locator_size = 20, record_size = 56;
    if (end < locator_size) fail("it has no zip64 record");
    std::array<std::byte, locator_size> locator{};
    file_->read(end - locator_size, locator);
    if (little_endian<std::uint32_t>(locator, 0) != locator_mark) fail("it has no zip64 record");
    const auto at = little_endian<std::uint64_t>(locator, 8);
    want_inside(at, record_size, end - locator_size, "the zip64 record");
    std::array<std::byte, record_size> record{};
    file_->read(at, record);
    if (little_endian<std::uint32_t>(record, 0) != end64_mark) fail("it has no zip64 record");
    return {little_endian<std::uint64_t>(record, 48), little_endian<std::uint64_t>(record, 40)};
  }

  /// Reads the first entry of `list` and returns the bytes it takes there.
  std::size_t read_entry(std::span<const std::byte> list, std::uint64_t list_begin, std::vector<Range>& ranges) {
    constexpr std::size_t fixed = 46;
    if (list.size() < fixed || little_endian<std::uint32_t>(list, 0) != entry_mark)
      fail("its list of entries is damaged");
    const std::size_t name = little_endian<std::uint16_t>(list, 28), extra = little_endian<std::uint16_t>(list, 30),
                      comment = little_endian<std::uint16_t>(list, 32);
    if (list.size() - fixed < name + extra + comment) fail("its list of entries is damaged");
    Entry entry{.name = std::string(reinterpret_cast<const char*>(list.data() + fixed), name),
                .begin = 0,
                .size = little_endian<std::uint32_t>(list, 24),
                .crc = little_endian<std::uint32_t>(list, 16)};
    std::uint64_t stored = little_endian<std::uint32_t>(list, 20), header = little_endian<std::uint32_t>(list, 42);
    wide_fields(list.subspan(fixed + name, extra), entry.size, stored, header);
    const bool encrypted = (little_endian<std::uint16_t>(list, 8) & 1u) != 0;
    entry.stored = little_endian<std::uint16_t>(list, 10) == 0 && !encrypted;
    if (entry.stored && stored != entry.size) fail(concat("its entry ", shown(entry.name), " has two sizes"));
    std::array<std::byte, 30> local{};
    want_inside(header, local.size(), list_begin, concat("the entry ", shown(entry.name)));
    file_->read(header, local);
    if (little_endian<std::uint32_t>(local, 0) != local_mark)
      fail(concat("its entry ", shown(entry.name), " is not where it should be"));
    const std::uint64_t local_name = little_endian<std::uint16_t>(local, 26);
    entry.begin = header + local.size() + local_name + little_endian<std::uint16_t>(local, 28);
    std::string again(std::size_t(local_name), '\0');
    if (local_name == name) file_->read(header + local.size(), std::as_writable_bytes(std::span(again)));
    if (again != entry.name) fail(concat("its entry ", shown(entry.name), " has two names"));
    want_inside(entry.begin, stored, list_begin, concat("the entry ", shown(entry.name)));
    ranges.push_back({header, entry.begin + stored});
    entries_.push_back(std::move(entry));
    return fixed + name + extra + comment;
  }

  /// Replaces those of the three numbers that did not fit 32 bits by the ones of the zip64 field, which has no others.
  void wide_fields(std::span<const std::byte> extra, std::uint64_t& size, std::uint64_t& stored,
                   std::uint64_t& header) const {
    while (extra.size() >= 4) {
      const std::size_t id = little_endian<std::uint16_t>(extra, 0), bytes = little_endian<std::uint16_t>(extra, 2);
      if (bytes > extra.size() - 4) break;
      if (id == 1) {
        std::span<const std::byte> field = extra.subspan(4, bytes);
        for (std::uint64_t* number : {&size, &stored, &header}) {
          if (*number != in_zip64) continue;
          if (field.size() < 8) fail("a zip64 field is too short");
          *number = little_endian<std::uint64_t>(field, 0);
          field = field.subspan(8);
        }
        return;
      }
      extra = extra.subspan(4 + bytes);
    }
    if (size == in_zip64 || stored == in_zip64 || header == in_zip64) fail("a zip64 field is missing");
  }

  const InputFile* file_;
  std::vector<Entry> entries_;
};

}}}  // namespace strata::STRATA_ABI::detail
