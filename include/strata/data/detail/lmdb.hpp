// The directory of an LMDB database: its keys, and where their values lie. It is read as a file, without the library
// lmdb: that maps the file into memory and follows its page numbers, so that a damaged one ends the program. Here
// nothing is believed before the file's length and the page's bear it out, and each page is read once.
//
// Format, as lmdb 0.9 writes it on machines of 64 bits, least byte first (lmdb's mdb.c: MDB_page, MDB_node, MDB_meta):
// pages 0 and 1 are two states of the database, of which the later one counts; it names the root of a B+ tree whose
// leaves hold keys, and values or, where these are large, the number of the page where they begin.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// What is wrong with a database; who knows its path adds it.
struct BadLmdb : Error {
  using Error::Error;
};

struct LmdbEntry {
  std::string key;
  std::uint64_t offset = 0, size = 0;  // of the value's bytes in the file
  bool large = false;                  // it has pages of its own
};

struct LmdbDirectory {
  std::vector<LmdbEntry> entries = {};  // by rising keys, as memcmp compares
  std::uint64_t page_size = 0;
};

inline constexpr std::uint64_t lmdb_page_header = 16;
enum LmdbPage : unsigned { lmdb_branch = 1, lmdb_leaf = 2, lmdb_overflow = 4, lmdb_meta = 8, lmdb_kinds = 0x6F };

/// The number of so many bytes at a place, the least first.
inline std::uint64_t lmdb_number(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i > 0; --i) value = value << 8 | static_cast<unsigned char>(bytes[at + i - 1]);
  return value;
}

/// Whether a page's header is that of page `number`, of this kind.
inline bool is_lmdb_page(std::string_view header, std::uint64_t number, unsigned kind) {
  return lmdb_number(header, 0, 8) == number && (lmdb_number(header, 10, 2) & lmdb_kinds) == kind;
}

/// What a meta page says.
struct LmdbState {
  std::uint64_t page_size, flags, depth, entries, root, last_page, transaction;
  static constexpr std::size_t bytes = 152;  // of a page, as many are read
};

/// Throws BadLmdb for what is no meta page of a database that is read here.
inline LmdbState lmdb_state(std::string_view page, std::uint64_t number) {
  if (lmdb_number(page, 16, 4) != 0xBEEFC0DE || !is_lmdb_page(page, number, lmdb_meta))
    throw BadLmdb(number == 0 ? "it does not begin as an LMDB database" : "its second page is damaged");
  if (const std::uint64_t version = lmdb_number(page, 20, 4); version != 1)
    throw BadLmdb(concat("its format has version ", version, ", 1 is read (that of lmdb 0.9)"));
  constexpr std::size_t free_pages = 40, main = 88;  // two descriptions of 48 bytes
  LmdbState out{.page_size = lmdb_number(page, free_pages, 4),
                .flags = lmdb_number(page, main + 4, 2),
                .depth = lmdb_number(page, main + 6, 2),
                .entries = lmdb_number(page, main + 32, 8),
                .root = lmdb_number(page, main + 40, 8),
                .last_page = lmdb_number(page, 136, 8),
                .transaction = lmdb_number(page, 144, 8)};
  if (out.page_size < 512 || out.page_size > 32768 || (out.page_size & (out.page_size - 1)) != 0)
    throw BadLmdb(concat("its pages would have ", out.page_size, " bytes: it is damaged, or of a machine of 32 bits"));
  return out;
}

/// The walk through the tree. Read: read(offset, to, count).
template <class Read>
class LmdbWalk {
 public:
  LmdbWalk(std::uint64_t size, Read& read) : size_(size), read_(read) {}

  LmdbDirectory run() {
    if (size_ < LmdbState::bytes) throw BadLmdb(concat("it has ", size_, " bytes, too few for an LMDB database"));
    const LmdbState first = state_at(0, 0);
    page_size_ = first.page_size;
    if (size_ < 2 * page_size_)
      throw BadLmdb(concat("it ends at byte ", size_, ", in its second page: it was cut short"));
    const LmdbState second = state_at(page_size_, 1);
    const LmdbState& state = second.transaction > first.transaction ? second : first;
    if (second.page_size != page_size_) throw BadLmdb("its first two pages disagree: it is damaged");
    constexpr std::uint64_t order_of_its_own =
        0x02 | 0x04 | 0x08;  // reversed keys, several values of a key, whole numbers
    if ((state.flags & order_of_its_own) != 0)
      throw BadLmdb("its keys are reversed, numbers, or have several values each, which is not read");
    pages_ = size_ / page_size_;
    last_page_ = state.last_page;
    if (state.root != ~std::uint64_t{0}) {
      if (state.depth < 1 || state.depth > 32) throw BadLmdb(concat("its tree would have ", state.depth, " levels"));
      walk(state.root, state.depth);
    }
    if (out_.entries.size() != state.entries)
      throw BadLmdb(concat("it has ", out_.entries.size(), " keys and says that there are ", state.entries));
    out_.page_size = page_size_;
    return std::move(out_);
  }

 private:
  LmdbState state_at(std::uint64_t offset, std::uint64_t number) {
    std::array<char, LmdbState::bytes> bytes;
    read_(offset, bytes.data(), bytes.size());
    return lmdb_state(std::string_view(bytes.data(), bytes.size()), number);
  }

  [[noreturn]] static void damaged(std::uint64_t page) { throw BadLmdb(concat("its page ", page, " is damaged")); }

  void walk(std::uint64_t number, std::uint64_t levels) {
    if (number < 2 || number > last_page_ || number >= pages_)
      throw BadLmdb(concat("it names page ", number, " of ", pages_, ": it is damaged, or was cut short"));
    if (++visited_ > pages_) throw BadLmdb("its pages lead in a circle: it is damaged");
    std::string page(std::size_t(page_size_), '\0');
    read_(number * page_size_, page.data(), page.size());
    const bool leaf = levels == 1;
    if (!is_lmdb_page(page, number, leaf ? lmdb_leaf : lmdb_branch)) damaged(number);
    const std::uint64_t lower = lmdb_number(page, 12, 2);
    if (lower < lmdb_page_header || lower > page_size_ || lower % 2 != 0) damaged(number);
    const std::size_t count = std::size_t(lower - lmdb_page_header) / 2;
    if (count == 0) damaged(number);
    std::uint64_t used = lower;  // nodes that overlapped would hold more keys than the file has bytes
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t at = lmdb_number(page, std::size_t(lmdb_page_header) + 2 * i, 2);
      if (at < lower || at + 8 > page_size_) damaged(number);
      const std::uint64_t low = lmdb_number(page, std::size_t(at), 4);
      const std::uint64_t flags = lmdb_number(page, std::size_t(at) + 4, 2);
      const std::uint64_t key_size = lmdb_number(page, std::size_t(at) + 6, 2);
      if (!leaf) {
        used += 8 + key_size;
        if (used > page_size_ || at + 8 + key_size > page_size_) damaged(number);
        walk(low | flags << 32, levels - 1);
        continue;
      }
      if ((flags & ~std::uint64_t{1}) != 0)
        throw BadLmdb("it holds databases with names, or several values of a key, which are not read");
      const bool large = (flags & 1) != 0;
      const std::uint64_t here = large ? 8 : low;  // bytes behind the key
      used += 8 + key_size + here;
      if (key_size == 0 || used > page_size_ || at + 8 + key_size + here > page_size_) damaged(number);
      LmdbEntry entry{page.substr(std::size_t(at) + 8, std::size_t(key_size)), number * page_size_ + at + 8 + key_size,
                      low, large};
      if (large) {
        const std::uint64_t begin = lmdb_number(page, std::size_t(at + 8 + key_size), 8);
        if (begin < 2 || begin > last_page_ || begin >= pages_ || low > size_ - begin * page_size_ - lmdb_page_header)
          throw BadLmdb(
              concat("the value of a key of page ", number, " lies outside: it is damaged, or was cut short"));
        entry.offset = begin * page_size_ + lmdb_page_header;
      }
      if (!out_.entries.empty() && out_.entries.back().key >= entry.key) damaged(number);
      out_.entries.push_back(std::move(entry));
    }
  }

  std::uint64_t size_, page_size_ = 0, pages_ = 0, last_page_ = 0, visited_ = 0;
  Read& read_;
  LmdbDirectory out_;
};

/// The directory of a database of `size` bytes, which read(offset, to, count) reads. Throws BadLmdb for what is
/// damaged, cut short, or is not BasicSR's or caffe's kind: keys in the order of their bytes, with one value each, in
/// the database without a name.
template <class Read>
LmdbDirectory read_lmdb(std::uint64_t size, Read&& read) {
  return LmdbWalk<std::remove_reference_t<Read>>(size, read).run();
}

}}}  // namespace strata::STRATA_ABI::detail
