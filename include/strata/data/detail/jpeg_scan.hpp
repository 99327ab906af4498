// Reads the image data of JPEG files (ITU-T T.81) as a decoder does, and computes nothing: what is missing, too much or
// impossible in it is found before memory is taken for pixels. stb_image fills what is missing with grey and says
// nothing.
//
// A JPEG file has no checksums. Damage that leaves exactly as many codes as the picture has blocks, and values in their
// range, cannot be told from another picture.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "strata/data/detail/image_bytes.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

[[noreturn]] inline void damaged_jpeg(const char* what) { throw BadImage(concat("it is damaged: ", what)); }

/// A Huffman code of JPEG.
class JpegCode {
 public:
  bool defined = false;

  /// From a table's 16 counts and its symbols. Throws BadImage for what is no prefix code.
  void build(Bytes counts, Bytes symbols) {
    fast_.fill(0);
    std::uint32_t code = 0, index = 0;
    for (std::uint32_t length = 1; length <= 16; ++length) {
      code <<= 1;
      first_[length] = std::int32_t(index) - std::int32_t(code);
      for (std::uint32_t i = 0; i < counts[length - 1]; ++i, ++code, ++index) {
        symbols_[index] = symbols[index];
        if (length > fast_bits || code >> length != 0) continue;
        const std::uint32_t spread = fast_bits - length;
        for (std::uint32_t j = 0; j < (1u << spread); ++j)
          fast_[(code << spread) + j] = (length + (symbols[index] & 0xF)) << 16 | length << 8 | symbols[index];
      }
      if (code > (1u << length)) damaged_jpeg("a JPEG Huffman code has too many codes");
      ends_[length] = code << (16 - length);
    }
    defined = true;
  }

 private:
  friend class JpegBits;
  static constexpr std::uint32_t fast_bits = 9;
  // What the next bits begin with: 8 bits for the symbol, 8 for the code's length, and that with the bits of the value,
  // as many as the symbol's lower half says. 0: a longer code.
  std::array<std::uint32_t, 1 << fast_bits> fast_{};
  std::array<std::uint32_t, 17> ends_{};  // behind the last code of each length, as the first of 16 bits
  std::array<std::int32_t, 17> first_{};  // from a code of each length to its place among the symbols
  std::array<unsigned char, 256> symbols_{};
};

/// The bits of a scan up to the next marker, without the zero that follows each FF.
class JpegBits {
 public:
  explicit JpegBits(Bytes data) : at_(data.data()), end_(data.data() + data.size()) {}

  std::uint32_t symbol(const JpegCode& code) {
    if (count_ < 32) fill();
    const std::uint32_t entry = code.fast_[bits_ >> (64 - JpegCode::fast_bits)];
    if (entry != 0) {
      skip(entry >> 8 & 0xFF);
      return entry & 0xFF;
    }
    const auto next = std::uint32_t(bits_ >> 48);
    for (std::uint32_t length = JpegCode::fast_bits + 1; length <= 16; ++length)
      if (next < code.ends_[length]) {
        skip(length);
        return code.symbols_[std::size_t(std::int32_t(next >> (16 - length)) + code.first_[length]) & 0xFF];
      }
    damaged_jpeg("its JPEG image data has an unknown code");
  }
  /// The next symbol, with the bits of its value passed over.
  std::uint32_t symbol_and_value(const JpegCode& code) {
    if (count_ < 32) fill();
    const std::uint32_t entry = code.fast_[bits_ >> (64 - JpegCode::fast_bits)];
    if (entry != 0) {
      skip(entry >> 16);
      return entry & 0xFF;
    }
    const std::uint32_t found = symbol(code);
    skip(found & 0xF);
    return found;
  }
  /// The next bits, 0 to 16 of them.
  std::uint32_t take(std::uint32_t number) {
    if (count_ < 16) fill();
    const auto value = number == 0 ? 0 : std::uint32_t(bits_ >> (64 - number));
    skip(number);
    return value;
  }
  /// Passes over up to 16 bits behind a symbol, which has seen to it that they are there unless the data ends.
  void skip(std::uint32_t number) {
    if (count_ < number) throw TruncatedImage("it is damaged: its JPEG image data ends early");
    bits_ <<= number;
    count_ -= number;
  }
  /// Passes over any number of bits.
  void pass(std::uint32_t number) {
    for (; number > 16; number -= 16) take(16);
    take(number);
  }

  /// Ends where the data does: at an FF with the marker behind it. Some cameras write zeros in front of it.
  const unsigned char* finish() {
    skip(count_ % 8);
    if (count_ > 0 && bits_ >> (64 - count_) != 0) too_much();
    while (at_ != end_ && *at_ == 0) ++at_;
    while (end_ - at_ >= 2 && at_[0] == 0xFF && at_[1] == 0xFF) ++at_;
    if (at_ != end_ && *at_ != 0xFF) too_much();
    return at_;
  }

 private:
  [[noreturn]] static void too_much() { damaged_jpeg("its JPEG image data holds more than the picture"); }

  void fill() {
    if (end_ - at_ >= 8) {
      std::uint64_t next;
      std::memcpy(&next, at_, sizeof next);
      const std::uint64_t inverse = ~next;  // an FF is a zero here
      if (((inverse - 0x0101010101010101u) & next & 0x8080808080808080u) == 0) {
        if constexpr (std::endian::native == std::endian::little) next = __builtin_bswap64(next);
        bits_ |= next >> count_;  // those beyond `count_` come again
        const std::uint32_t bytes = (64 - count_) / 8;
        at_ += bytes;
        count_ += 8 * bytes;
        return;
      }
    }
    if (count_ < 64) bits_ &= ~(~std::uint64_t{0} >> count_);
    while (count_ <= 56 && at_ != end_) {
      const std::uint64_t byte = *at_;
      if (byte == 0xFF && (end_ - at_ < 2 || at_[1] != 0)) return;
      at_ += byte == 0xFF ? 2 : 1;
      bits_ |= byte << (56 - count_);
      count_ += 8;
    }
  }

  std::uint64_t bits_ = 0;  // the next one highest
  std::uint32_t count_ = 0;
  const unsigned char* at_;
  const unsigned char* end_;
};

struct JpegComponent {
  int id = 0, h = 1, v = 1, table = 0;
  std::int64_t blocks_w = 0, blocks_h = 0;  // that hold pixels
  std::int64_t all_w = 0;                   // with those that fill up the last units
  std::int32_t dc = 0;                      // the last block's
  const JpegCode *dc_code = nullptr, *ac_code = nullptr;
  // of each coefficient, what a progressive file has still to send; -1: all
  std::array<signed char, 64> missing_bits{};
  std::vector<std::uint64_t> nonzero;          // of each block's coefficients, in a progressive file
};

/// What the scans of one picture share: tables, components, and what has been sent.
class JpegScans {
 public:
  std::int64_t w = 0, h = 0;
  bool progressive = false;
  std::uint32_t restart_interval = 0;
  std::vector<JpegComponent> components;

  /// The Huffman tables of a segment: at its counts stb_image writes past its arrays when they exceed 256.
  void read_codes(Bytes body) {
    while (!body.empty()) {
      std::size_t count = 0;
      if (body.size() >= 17)
        for (const unsigned char codes : body.subspan(1, 16)) count += codes;
      if (body.size() < 17 || count > 256 || count > body.size() - 17 || (body[0] & 0xF) > 3 || body[0] >> 4 > 1)
        damaged_jpeg("a JPEG Huffman table is impossible");
      codes_[body[0] >> 4][body[0] & 3].build(body.subspan(1, 16), body.subspan(17, count));
      body = body.subspan(17 + count);
    }
  }

  void read_quantisation(Bytes body) {
    while (!body.empty()) {
      const std::size_t bytes = body[0] >> 4 == 0 ? 1 : 2;
      if (body[0] >> 4 > 1 || (body[0] & 0xF) > 3 || body.size() < 1 + 64 * bytes)
        damaged_jpeg("a JPEG quantisation table is impossible");
      dc_steps_[body[0] & 3] = std::int32_t(big_endian(body.subspan(1, bytes)));
      body = body.subspan(1 + 64 * bytes);
    }
  }

  /// When `components` have their factors. Each block takes a bit at least: throws BadImage when `bytes` cannot be
  /// enough.
  void lay_out(std::size_t bytes) {
    for (const JpegComponent& one : components) h_most_ = std::max(h_most_, one.h), v_most_ = std::max(v_most_, one.v);
    for (const JpegComponent& one : components)
      if (h_most_ % one.h != 0 || v_most_ % one.v != 0)
        throw BadImage("its JPEG channels have sizes that are no whole parts of one another, which is not supported");
    units_w_ = rounded_up(w, 8 * h_most_), units_h_ = rounded_up(h, 8 * v_most_);
    std::int64_t blocks = 0;
    for (JpegComponent& one : components) {
      one.blocks_w = rounded_up(rounded_up(w * one.h, h_most_), 8);
      one.blocks_h = rounded_up(rounded_up(h * one.v, v_most_), 8);
      one.all_w = units_w_ * one.h;
      one.missing_bits.fill(-1);
      blocks += one.blocks_w * one.blocks_h;
    }
    if (blocks / 8 > std::int64_t(bytes))
      throw TruncatedImage(concat("it is damaged: ", bytes, " bytes cannot hold its ", w, "x", h, " pixels"));
    if (progressive)
      for (JpegComponent& one : components) one.nonzero.resize(std::size_t(one.all_w * units_h_ * one.v));
  }

  /// One scan: its header, and the data from there to the file's end. Returns where the marker behind it is.
  const unsigned char* run(Bytes header, Bytes data) {
    const std::size_t count = header.empty() ? 0 : header[0];
    if (count < 1 || count > components.size() || header.size() != 4 + 2 * count)
      damaged_jpeg("a JPEG scan's header is impossible");
    first_ = header[1 + 2 * count], last_ = header[2 + 2 * count];
    high_ = header[3 + 2 * count] >> 4, low_ = header[3 + 2 * count] & 0xF;
    const bool refines = high_ > 0;
    if (progressive ? first_ > last_ || last_ > 63 || low_ > 13 || (refines && high_ != low_ + 1) ||
                          (first_ == 0 ? last_ != 0 : count != 1)
                    : first_ != 0 || last_ != 63 || high_ != 0 || low_ != 0)
      damaged_jpeg("a JPEG scan's header is impossible");
    std::vector<JpegComponent*> order;
    std::int64_t blocks = 0;
    for (std::size_t i = 0; i < count; ++i) {
      JpegComponent* found = nullptr;
      for (JpegComponent& one : components)
        if (one.id == header[1 + 2 * i]) found = &one;
      const std::size_t dc = header[2 + 2 * i] >> 4, ac = header[2 + 2 * i] & 0xF;
      if (!found || dc > 3 || ac > 3 || dc_steps_[std::size_t(found->table)] == 0)
        damaged_jpeg("a JPEG scan's header is impossible");
      for (const JpegComponent* other : order)
        if (other == found) damaged_jpeg("a JPEG scan's header is impossible");
      found->dc_code = &codes_[0][dc], found->ac_code = &codes_[1][ac];
      if ((first_ == 0 && !refines && !found->dc_code->defined) || (last_ > 0 && !found->ac_code->defined))
        damaged_jpeg("a JPEG scan's Huffman code is missing");
      for (std::size_t k = first_; k <= last_; ++k) {
        signed char& missing = found->missing_bits[k];
        if (missing != (refines ? int(high_) : -1))
          damaged_jpeg("a JPEG scan comes twice, or without the one before it");
        missing = static_cast<signed char>(low_);
      }
      order.push_back(found);
      blocks += found->h * found->v;
    }
    if (count > 1 && blocks > 10) damaged_jpeg("a JPEG scan's header is impossible");
    return run(order, data);
  }

  /// When the picture ends. A progressive file may leave out detail, and must finish what it has begun to send.
  void check_complete() const {
    for (const JpegComponent& one : components) {
      if (one.missing_bits[0] != 0) throw TruncatedImage("it is damaged: a part of its JPEG image data is missing");
      for (const signed char missing : one.missing_bits)
        if (missing > 0) throw TruncatedImage("it is damaged: a part of its JPEG image data is missing");
    }
  }

 private:
  static std::int64_t rounded_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

  const unsigned char* run(const std::vector<JpegComponent*>& order, Bytes data) {
    JpegBits bits(data);
    const bool alone = order.size() == 1;
    const std::int64_t columns = alone ? order[0]->blocks_w : units_w_, rows = alone ? order[0]->blocks_h : units_h_;
    std::uint32_t until_restart = restart_interval, restarts = 0;
    begin(order);
    for (std::int64_t y = 0; y < rows; ++y)
      for (std::int64_t x = 0; x < columns; ++x) {
        if (restart_interval > 0 && until_restart-- == 0) {
          const unsigned char* const at = finish(bits);
          const unsigned char* const end = data.data() + data.size();
          if (end - at < 2 || at[1] != 0xD0 + restarts++ % 8) damaged_jpeg("a JPEG restart marker is missing");
          bits = JpegBits({at + 2, std::size_t(end - at - 2)});
          until_restart = restart_interval - 1;
          begin(order);
        }
        if (alone) {
          block(bits, *order[0], y * order[0]->all_w + x);
          continue;
        }
        for (JpegComponent* one : order)
          for (int v = 0; v < one->v; ++v)
            for (int u = 0; u < one->h; ++u) block(bits, *one, (y * one->v + v) * one->all_w + x * one->h + u);
      }
    return finish(bits);
  }

  void begin(const std::vector<JpegComponent*>& order) {
    for (JpegComponent* one : order) one->dc = 0;
    empty_blocks_ = 0;
  }
  const unsigned char* finish(JpegBits& bits) const {
    if (empty_blocks_ > 0) damaged_jpeg("its JPEG image data holds more than the picture");
    return bits.finish();
  }

  void block(JpegBits& bits, JpegComponent& one, std::int64_t index) {
    if (!progressive) {
      dc(bits, one);
      ac(bits, *one.ac_code);
    } else if (first_ == 0) {
      if (high_ == 0)
        dc(bits, one);
      else
        bits.take(1);
    } else if (high_ == 0) {
      ac_first(bits, one, one.nonzero[std::size_t(index)]);
    } else {
      ac_refined(bits, one, one.nonzero[std::size_t(index)]);
    }
  }

  // Differences and values of 8-bit samples have 11 and 10 bits (T.81, F.1.2); a mean cannot be outside the samples'
  // range, which is allowed twice here, for what quantisation adds.
  void dc(JpegBits& bits, JpegComponent& one) const {
    const std::uint32_t size = bits.symbol(*one.dc_code);
    if (size > 11) impossible();
    const auto value = std::int32_t(bits.take(size));
    one.dc += size > 0 && value < (1 << (size - 1)) ? value - (1 << size) + 1 : value;
    const std::int64_t mean = (std::int64_t{one.dc} * dc_steps_[std::size_t(one.table)]) << low_;
    if (mean > 2048 || mean < -2048) impossible();
  }

  static void ac(JpegBits& bits, const JpegCode& code) {
    for (std::uint32_t k = 1; k < 64;) {
      const std::uint32_t symbol = bits.symbol_and_value(code), size = symbol & 0xF;
      if (symbol == 0) return;
      k += (symbol >> 4) + 1;
      if (size > 10 || k > 64 || (size == 0 && symbol != 0xF0)) impossible();
    }
  }

  void ac_first(JpegBits& bits, const JpegComponent& one, std::uint64_t& nonzero) {
    if (empty_blocks_ > 0) {
      --empty_blocks_;
      return;
    }
    for (std::uint32_t k = first_; k <= last_; ++k) {
      const std::uint32_t symbol = bits.symbol_and_value(*one.ac_code), run = symbol >> 4, size = symbol & 0xF;
      if (size == 0 && run < 15) {
        empty_blocks_ = (1u << run) - 1 + bits.take(run);
        return;
      }
      k += run;
      if (size > 10 || k > last_) impossible();
      if (size > 0) nonzero |= std::uint64_t{1} << k;
    }
  }

  void ac_refined(JpegBits& bits, const JpegComponent& one, std::uint64_t& nonzero) {
    std::uint32_t k = first_;
    if (empty_blocks_ == 0) {
      for (; k <= last_; ++k) {
        const std::uint32_t symbol = bits.symbol(*one.ac_code), size = symbol & 0xF;
        std::uint32_t run = symbol >> 4;
        if (size > 1) impossible();
        if (size == 0 && run < 15) {
          empty_blocks_ = (1u << run) + bits.take(run);
          break;
        }
        if (size == 1) bits.skip(1);
        for (; k <= last_; ++k) {  // past `run` coefficients that are zero so far
          if (nonzero >> k & 1)
            bits.take(1);
          else if (run-- == 0)
            break;
        }
        if (k > last_) impossible();
        if (size == 1) nonzero |= std::uint64_t{1} << k;
      }
    }
    if (empty_blocks_ == 0) return;
    --empty_blocks_;
    if (k <= last_) {
      const std::uint64_t rest = nonzero >> k & (~std::uint64_t{0} >> (63 - (last_ - k)));
      bits.pass(std::uint32_t(std::popcount(rest)));
    }
  }

  [[noreturn]] static void impossible() { damaged_jpeg("its JPEG image data has an impossible value"); }

  std::array<std::array<JpegCode, 4>, 2> codes_;  // DC, AC
  std::array<std::int32_t, 4> dc_steps_{};        // of the quantisation tables; 0: there is none
  int h_most_ = 1, v_most_ = 1;
  std::int64_t units_w_ = 0, units_h_ = 0;
  std::uint32_t first_ = 0, last_ = 63, high_ = 0, low_ = 0;  // of the scan
  std::uint32_t empty_blocks_ = 0;                            // that are still to come
};

}}}  // namespace strata::STRATA_ABI::detail
