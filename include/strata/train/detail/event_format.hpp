// The bytes of TensorBoard's event files: protocol buffers in records with checksums.
//
// Formats: https://protobuf.dev/programming-guides/encoding and, for the numbers of fields, event.proto, summary.proto,
// tensor.proto and plugin_data.proto of TensorBoard; records as in TFRecord: length (8 bytes, little-endian), masked
// CRC-32C of these, data, masked CRC-32C of the data.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include "strata/core/crc32.hpp"


namespace strata { inline namespace STRATA_ABI { namespace detail {

inline void append_little_endian(std::string& out, std::uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += char(static_cast<unsigned char>(value >> (8 * i)));
}
inline std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  return value;
}

/// A message of protocol buffers, field by field.
class ProtoMessage {
 public:
  ProtoMessage& integer(int field, std::int64_t value) {
    tag(field, 0);
    varint(std::uint64_t(value));
    return *this;
  }
  ProtoMessage& real(int field, double value) {
    tag(field, 1);
    append_little_endian(bytes_, std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  ProtoMessage& real32(int field, float value) {
    tag(field, 5);
    append_little_endian(bytes_, std::bit_cast<std::uint32_t>(value), 4);
    return *this;
  }
  ProtoMessage& bytes(int field, std::string_view value) {
    tag(field, 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  ProtoMessage& message(int field, const ProtoMessage& value) { return bytes(field, value.bytes_); }
  ProtoMessage& reals(int field, std::span<const double> values) {  // packed
    tag(field, 2);
    varint(values.size() * 8);
    for (const double value : values) append_little_endian(bytes_, std::bit_cast<std::uint64_t>(value), 8);
    return *this;
  }
  const std::string& str() const& { return bytes_; }

 private:
  void tag(int field, unsigned wire_type) { varint(std::uint64_t(field) << 3 | wire_type); }
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += char(static_cast<unsigned char>(value | 0x80));
    bytes_ += char(static_cast<unsigned char>(value));
  }

  std::string bytes_;
};

inline std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t crc = crc32c(std::as_bytes(std::span(bytes.data(), bytes.size())));
  return std::rotr(crc, 15) + 0xa282ead8u;
}

inline void append_record(std::string& out, std::string_view data) {
  std::string length;
  append_little_endian(length, data.size(), 8);
  out += length;
  append_little_endian(out, masked_crc(length), 4);
  out += data;
  append_little_endian(out, masked_crc(data), 4);
}

/// What the first 12 bytes of a record say of its length; the largest number where they are damaged.
inline std::uint64_t record_length(std::string_view start) {
  if (masked_crc(start.substr(0, 8)) != little_endian(start.substr(8, 4))) return ~std::uint64_t{0};
  return little_endian(start.substr(0, 8));
}

/// The data of the record at the front of `bytes`, which is taken away; false, and nothing taken, where there is no
/// whole one.
inline bool next_record(std::string_view& bytes, std::string_view& data) {
  if (bytes.size() < 16) return false;
  const std::uint64_t length = record_length(bytes);
  if (length > bytes.size() - 16) return false;
  data = bytes.substr(12, std::size_t(length));
  if (masked_crc(data) != little_endian(bytes.substr(12 + data.size(), 4))) return false;
  bytes.remove_prefix(16 + data.size());
  return true;
}

/// Field 2 of an event, its step; 0 where it has none. -1 for what is no such message.
inline std::int64_t step_of_event(std::string_view event) {
  std::int64_t step = 0;
  const auto varint = [&](std::uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !event.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(event[0]);
      event.remove_prefix(1);
      value |= std::uint64_t(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  };
  while (!event.empty()) {
    std::uint64_t tag = 0, value = 0;
    if (!varint(tag)) return -1;
    std::uint64_t skip = 0;
    switch (tag & 7) {
      case 0:
        if (!varint(value)) return -1;
        if (tag >> 3 == 2) step = std::int64_t(value);
        break;
      case 1:
        skip = 8;
        break;
      case 2:
        if (!varint(skip)) return -1;
        break;
      case 5:
        skip = 4;
        break;
      default:
        return -1;
    }
    if (skip > event.size()) return -1;
    event.remove_prefix(skip);
  }
  return step;
}

}}}  // namespace strata::STRATA_ABI::detail
