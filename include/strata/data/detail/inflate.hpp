// Decompression of zlib and deflate streams (RFC 1950, RFC 1951) into a buffer of known size, made for PNG images:
// photographs compress to codes of few bits, two of which are looked up at once.
//
//     inflate_zlib(padded_input, size, output, output_size);      // throws BadImage unless it has output_size bytes
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "strata/core/simd.hpp"
#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Zero bytes that must follow the input, and writable bytes that must follow the output: both are read or written
/// beyond their ends by less than this before the end is noticed.
inline constexpr std::size_t inflate_padding = 320;

/// What the next bits of the input begin with. From the lowest bit on: 8 bits for the length of the code or codes, 2
/// for the number of literals (1 or 2), 2 for the kind when there is none, 4 for the number of extra bits, 16 for the
/// value: literals, or the base of a length or distance.
struct HuffmanEntry {
  enum Kind : std::uint32_t { longer = 0, base = 1, end = 2, invalid = 3 };
  // what a 64-bit shift looks at: costs nothing
  static constexpr std::uint32_t bits_of(std::uint32_t entry) { return entry & 63; }
  static constexpr std::uint32_t literals_of(std::uint32_t entry) { return entry >> 8 & 3; }
  static constexpr std::uint32_t kind_of(std::uint32_t entry) { return entry >> 10 & 3; }
  static constexpr std::uint32_t extra_of(std::uint32_t entry) { return entry >> 12 & 15; }
  static constexpr std::uint32_t value_of(std::uint32_t entry) { return entry >> 16; }
  static constexpr std::uint32_t make(std::uint32_t bits, std::uint32_t literals, Kind kind, std::uint32_t extra,
                                      std::uint32_t value) {
    return bits | literals << 8 | std::uint32_t(kind) << 10 | extra << 12 | value << 16;
  }
  /// A literal as the second of a pair: entry + second_of(next) is the entry of both. Not joined(...) for anything
  /// else.
  static constexpr std::uint32_t second_of(std::uint32_t entry) {
    return literals_of(entry) == 1 ? (entry & 0xFFFF) | (entry & 0xFF0000) << 8 : make(0, 0, end, 0, 0);
  }
  /// Whether a sum is of two literals whose codes have `most` bits together or fewer.
  static constexpr bool joined(std::uint32_t sum, std::uint32_t most) {
    return (sum & 0xFFF) - make(0, 2, longer, 0, 0) <= most;
  }
};

/// A Huffman code for decoding: a table of what any `TableBits` bits begin with.
template <int TableBits>
class HuffmanTable : public HuffmanEntry {
 public:
  static constexpr int table_bits = TableBits;

  /// entry_of(symbol) is the entry of a symbol with 0 bits. Throws BadImage for lengths that are no prefix code.
  template <class EntryOf>
  void build(std::span<const unsigned char> lengths, EntryOf entry_of) {
    counts_.fill(0);
    for (const unsigned char length : lengths) ++counts_[length];
    counts_[0] = 0;
    std::array<std::uint32_t, 16> place{};  // of the next code of each length among all, and then their ends
    std::uint32_t code = 0, total = 0;
    for (std::size_t length = 1; length < 16; ++length) {
      code = (code + counts_[length - 1]) << 1;
      if (code + counts_[length] > (1u << length)) throw BadImage("it is damaged: a Huffman code has too many codes");
      place[length] = total;
      total += counts_[length];
    }
    for (std::size_t symbol = 0; symbol < lengths.size(); ++symbol)
      if (const std::uint32_t length = lengths[symbol])
        sorted_[place[length]++] = entry_of(std::uint32_t(symbol)) | length;

    // Codes in their order count upwards from their first bit, which is the table's lowest. A table of one more bit is
    // the smaller one twice, and the longer codes. Places of longer codes, or of none, hold 0: the slow way finds out.
    table_[0] = 0;
    std::uint32_t reversed = 0, index = 0;
    for (std::size_t length = 1; length <= table_bits; ++length) {
      std::copy_n(table_.begin(), std::size_t{1} << (length - 1), table_.begin() + (std::ptrdiff_t{1} << (length - 1)));
      for (; index < place[length]; ++index) {
        table_[reversed] = sorted_[index];
        const std::uint32_t zeros = ~reversed & ((1u << length) - 1);
        const std::uint32_t carry = std::bit_floor(zeros);  // 0 behind the last code
        reversed = (reversed & (carry - 1)) | carry;
      }
    }
  }

  /// Joins literals whose codes are short enough to be looked up together.
  void pair_literals() {
    std::array<std::uint32_t, 1 << table_bits> seconds;
    for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] = second_of(table_[i]);
    for (std::uint32_t i = 0; i < table_.size(); ++i) {
      const std::uint32_t sum = table_[i] + seconds[i >> bits_of(table_[i])];
      table_[i] = joined(sum, table_bits) ? sum : table_[i];
    }
  }

  std::uint32_t look_up(std::uint64_t bits) const { return table_[bits & (table_.size() - 1)]; }

  /// The entry of a code longer than table_bits; of kind invalid when the bits begin with no code.
  std::uint32_t look_up_long(std::uint64_t bits) const {
    std::uint32_t code = 0, first = 0, index = 0;
    for (std::size_t length = 1; length < 16; ++length, bits >>= 1) {
      code |= std::uint32_t(bits & 1);
      if (code < first + counts_[length]) return sorted_[index + code - first];
      index += counts_[length];
      first = (first + counts_[length]) << 1;
      code <<= 1;
    }
    return make(0, 0, invalid, 0, 0);
  }

 private:
  std::array<std::uint32_t, 1 << table_bits> table_;
  std::array<std::uint32_t, 288> sorted_;  // the entries in the order of their codes
  std::array<std::uint16_t, 16> counts_;   // codes of each length
};

/// Bits of the input, the first one lowest.
struct BitReader {
  std::uint64_t bits = 0;  // what is read but not used; above the lowest `count` those of *in, which come again
  int count = 0;
  const unsigned char* in;
  const unsigned char* end;

  /// At least 56 bits are there afterwards, zeros beyond the end of the input.
  [[gnu::always_inline]] void refill() {
    std::uint64_t next;
    std::memcpy(&next, in, sizeof next);
    if constexpr (std::endian::native == std::endian::big) next = __builtin_bswap64(next);
    bits |= next << count;
    in += (63 - count) >> 3;
    count |= 56;
    if (in > end + 16) ends_early();
  }
  [[gnu::always_inline]] void drop(std::uint32_t number) {
    bits >>= number;
    count -= int(number);
  }
  [[gnu::always_inline]] std::uint32_t take(std::uint32_t number) {
    const auto value = std::uint32_t(bits & ((std::uint64_t{1} << number) - 1));
    drop(number);
    return value;
  }
  [[noreturn]] static void ends_early() { throw TruncatedImage("its compressed data ends early"); }
};

class Inflater {
 public:
  Inflater(const unsigned char* input, std::size_t size, unsigned char* output, std::size_t output_size, bool more)
      : input_{.in = input, .end = input + size},
        begin_(output),
        out_(output),
        out_end_(output + output_size),
        more_(more) {}

  /// A zlib stream.
  void run() {
    input_.refill();
    const std::uint32_t header = input_.take(16);
    if ((header & 0x0F) != 8 || (header >> 4 & 0x0F) > 7 || (header & 0x2000) != 0 ||
        ((header & 0xFF) << 8 | header >> 8) % 31 != 0)
      throw BadImage("it is damaged: its compressed data does not start as zlib's does");
    run_deflate();
  }

  /// A deflate stream, without zlib's header.
  void run_deflate() {
    for (bool last = false; !last && !full();) {
      input_.refill();
      last = input_.take(1) != 0;
      switch (input_.take(2)) {
        case 0: stored(); break;
        case 1: fixed_codes(); break;
        case 2: read_codes(); break;
        default: throw BadImage("it is damaged: a compressed block of unknown kind");
      }
    }
    if (input_.in - input_.count / 8 > input_.end) BitReader::ends_early();
    if (out_ != out_end_ && !full()) throw BadImage("it is damaged: its compressed data is too short");
  }

  /// The first byte behind the deflate stream, when all of it was decompressed.
  const unsigned char* rest() const { return input_.in - input_.count / 8; }

 private:
  static constexpr std::array<std::uint16_t, 29> length_base{3,  4,  5,  6,   7,   8,   9,   10,  11, 13,
                                                             15, 17, 19, 23,  27,  31,  35,  43,  51, 59,
                                                             67, 83, 99, 115, 131, 163, 195, 227, 258};
  static constexpr std::array<unsigned char, 29> length_extra{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2,
                                                              2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};

  static std::uint32_t literal_or_length(std::uint32_t symbol) {
    using T = HuffmanEntry;
    if (symbol < 256) return T::make(0, 1, T::longer, 0, symbol);
    if (symbol == 256) return T::make(0, 0, T::end, 0, 0);
    if (symbol > 285) return T::make(0, 0, T::invalid, 0, 0);
    return T::make(0, 0, T::base, length_extra[symbol - 257], length_base[symbol - 257]);
  }
  static std::uint32_t distance(std::uint32_t symbol) {
    using T = HuffmanEntry;
    if (symbol > 29) return T::make(0, 0, T::invalid, 0, 0);
    if (symbol < 4) return T::make(0, 0, T::base, 0, symbol + 1);
    const std::uint32_t extra = symbol / 2 - 1;
    return T::make(0, 0, T::base, extra, ((2 + symbol % 2) << extra) + 1);
  }

  void stored() {
    input_.drop(std::uint32_t(input_.count) & 7);
    const unsigned char* in = input_.in - input_.count / 8;
    const unsigned char* const end = input_.end;
    if (end - in < 4) BitReader::ends_early();
    const std::size_t length = std::size_t(in[0] | in[1] << 8), complement = std::size_t(in[2] | in[3] << 8);
    if ((length ^ complement) != 0xFFFF) throw BadImage("it is damaged: a stored block contradicts itself");
    in += 4;
    if (std::size_t(end - in) < length) BitReader::ends_early();
    if (std::size_t(out_end_ - out_) < length && !more_) too_long();
    const std::size_t used = std::min(length, std::size_t(out_end_ - out_));
    std::memcpy(out_, in, used);
    out_ += used;
    input_ = {.in = in + length, .end = end};
  }

  void fixed_codes() {
    std::array<unsigned char, 288> lengths;
    for (std::size_t i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
    literals_.build(lengths, literal_or_length);
    literals_.pair_literals();
    std::array<unsigned char, 30> fives;
    fives.fill(5);
    distances_.build(fives, distance);
    block();
  }

  void read_codes() {
    input_.refill();
    const std::size_t literals = input_.take(5) + 257, distances = input_.take(5) + 1, codes = input_.take(4) + 4;
    if (literals > 286 || distances > 30) throw BadImage("it is damaged: a block has too many symbols");
    std::array<unsigned char, 19> code_lengths{};
    constexpr std::array<unsigned char, 19> order{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    for (std::size_t i = 0; i < codes; ++i) {
      if (i % 16 == 0) input_.refill();
      code_lengths[order[i]] = static_cast<unsigned char>(input_.take(3));
    }
    distances_.build(code_lengths,
                     [](std::uint32_t symbol) { return HuffmanEntry::make(0, 0, HuffmanEntry::base, 0, symbol); });
    std::array<unsigned char, 316 + 138> lengths{};
    for (std::size_t i = 0; i < literals + distances;) {
      input_.refill();
      const std::uint32_t entry = distances_.look_up(input_.bits);  // of 7 bits at most
      if (HuffmanEntry::kind_of(entry) != HuffmanEntry::base)
        throw BadImage("it is damaged: a block's codes cannot be read");
      input_.drop(HuffmanEntry::bits_of(entry));
      const std::uint32_t symbol = HuffmanEntry::value_of(entry);
      if (symbol < 16) {
        lengths[i++] = static_cast<unsigned char>(symbol);
        continue;
      }
      if (symbol == 16 && i == 0) throw BadImage("it is damaged: a block's codes repeat nothing");
      const unsigned char repeated = symbol == 16 ? lengths[i - 1] : 0;
      const std::size_t times = symbol == 16   ? 3 + input_.take(2)
                                : symbol == 17 ? 3 + input_.take(3)
                                               : 11 + input_.take(7);
      std::fill_n(lengths.begin() + std::ptrdiff_t(i), times, repeated);
      i += times;
      if (i > literals + distances) throw BadImage("it is damaged: a block has too many codes");
    }
    literals_.build({lengths.data(), literals}, literal_or_length);
    literals_.pair_literals();
    distances_.build({lengths.data() + literals, distances}, distance);
    block();
  }

  // One block's symbols. Every round writes less than inflate_padding bytes before it looks at the end of the output.
  // The state is in local variables, which the bytes that are written cannot overlap: it stays in registers.
  void block() {
    using T = HuffmanEntry;
    // Look-ups of a round, of which the first is made by the round before it, before the bits are filled up: that takes
    // filling up off the chain of look-up, shift, look-up, which is what decoding takes its time for.
    constexpr int lookups = 56 / decltype(literals_)::table_bits - 1;
    BitReader input = input_;
    unsigned char* out = out_;
    input.refill();
    std::uint32_t entry = literals_.look_up(input.bits);
    while (true) {
      bool all = true;
      simd::unroll<lookups>([&](auto) STRATA_INLINED {
        if (!all) return;
        if (T::literals_of(entry) == 0) {
          all = false;
          return;
        }
        out[0] = static_cast<unsigned char>(T::value_of(entry));
        out[1] = static_cast<unsigned char>(T::value_of(entry) >> 8);
        out += T::literals_of(entry);
        input.drop(T::bits_of(entry));
        entry = literals_.look_up(input.bits);
      });
      if (out > out_end_) break;
      if (all) {
        input.refill();
        continue;
      }

      // 20 bits are there at least: enough for a length.
      static_assert(56 - (lookups - 1) * decltype(literals_)::table_bits >= 15 + 5);
      if (T::kind_of(entry) == T::longer) entry = literals_.look_up_long(input.bits);
      input.drop(T::bits_of(entry));
      if (T::kind_of(entry) != T::base) {
        if (T::literals_of(entry) != 0) {
          *out++ = static_cast<unsigned char>(T::value_of(entry));
          entry = literals_.look_up(input.bits);
          input.refill();
          continue;
        }
        if (T::kind_of(entry) == T::end) break;
        throw BadImage("it is damaged: an unknown code");
      }
      const std::size_t length = T::value_of(entry) + input.take(T::extra_of(entry));

      input.refill();
      entry = distances_.look_up(input.bits);
      if (T::kind_of(entry) == T::longer) entry = distances_.look_up_long(input.bits);
      if (T::kind_of(entry) != T::base) throw BadImage("it is damaged: an unknown code");
      input.drop(T::bits_of(entry));
      const std::size_t distance = T::value_of(entry) + input.take(T::extra_of(entry));
      entry = literals_.look_up(input.bits);  // of 28 bits or more
      input.refill();
      if (distance > std::size_t(out - begin_)) throw BadImage("it is damaged: it repeats what comes before its start");
      const unsigned char* const from = out - distance;
      if (distance >= 16) {
        std::memcpy(out, from, 16);
        for (std::size_t i = 16; i < length; i += 16) std::memcpy(out + i, from + i, 16);
      } else {
        for (std::size_t i = 0; i < length; ++i) out[i] = from[i];
      }
      out += length;
      if (out > out_end_) break;
    }
    if (out > out_end_ && !more_) too_long();
    input_ = input;
    out_ = out;
  }
  [[noreturn]] static void too_long() { throw BadImage("it is damaged: it holds more data than its size says"); }

  /// Whether all that is wanted is there, and what follows is not looked at.
  bool full() const { return more_ && out_ >= out_end_; }

  BitReader input_;
  unsigned char* begin_;
  unsigned char* out_;
  unsigned char* out_end_;
  bool more_;
  HuffmanTable<12> literals_;
  HuffmanTable<8> distances_;  // and the codes of the lengths
};

/// Decompresses output_size bytes: all there are or, with `more`, the first of more. inflate_padding zero bytes follow
/// the input's size, as many writable ones the output's. The checksum at the stream's end is not looked at: PNG's
/// chunks have their own. Throws BadImage.
inline void inflate_zlib(const unsigned char* input, std::size_t size, unsigned char* output, std::size_t output_size,
                         bool more = false) {
  Inflater(input, size, output, output_size, more).run();
}

}}}  // namespace strata::STRATA_ABI::detail
