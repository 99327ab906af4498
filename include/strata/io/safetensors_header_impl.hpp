// Definitions of io/safetensors_header.hpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/io/safetensors_header.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

inline void append_utf8(std::string& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text += static_cast<char>(static_cast<unsigned char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | (code >> 6));
    put(0x80 | (code & 63));
  } else if (code < 0x10000) {
    put(0xE0 | (code >> 12));
    put(0x80 | ((code >> 6) & 63));
    put(0x80 | (code & 63));
  } else {
    put(0xF0 | (code >> 18));
    put(0x80 | ((code >> 12) & 63));
    put(0x80 | ((code >> 6) & 63));
    put(0x80 | (code & 63));
  }
}

/// Reads strings, whole numbers and punctuation of JSON. Throws FileError, beginning with `path`, for anything else.
class JsonReader {
 public:
  JsonReader(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  [[noreturn]] void fail(std::string_view what) const {
    throw FileError(concat(path_, ": not a valid safetensors header: ", what, ", at byte ", at_, " of the header"));
  }

  /// Whether the next character, after white space, is `c`; takes it if so.
  bool take(char c) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void want(char c) {
    if (!take(c)) fail(concat("wanted '", c, "'"));
  }
  void want_end() {
    skip_space();
    if (at_ != text_.size()) fail("more text after the closing brace");
  }

  std::string string() {
    want('"');
    std::string value;
    while (true) {
      if (at_ == text_.size()) fail("a string without end");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return value;
      }
      if (c == '\\') {
        ++at_;
        escape(value);
        continue;
      }
      if (static_cast<unsigned char>(c) < 0x20) fail("a control character in a string");
      const std::size_t length = utf8_length(text_.substr(at_));
      if (length == 0) fail("invalid UTF-8");
      value.append(text_.substr(at_, length));
      at_ += length;
    }
  }

  /// A whole number from 0 to 2^63 - 1.
  std::int64_t number() {
    skip_space();
    const std::size_t first = at_;
    constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
    std::int64_t value = 0;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      const int digit = text_[at_] - '0';
      if (value > (largest - digit) / 10) fail("a number above 2^63 - 1");
      value = 10 * value + digit;
    }
    if (at_ == first) fail("wanted a whole number of at least 0");
    if (at_ - first > 1 && text_[first] == '0') fail("a number with a leading zero");
    return value;
  }

  /// Takes a word as null; false, and nothing is taken, where something else stands.
  bool word(std::string_view wanted) {
    skip_space();
    if (!text_.substr(at_).starts_with(wanted)) return false;
    at_ += wanted.size();
    return true;
  }

  /// Passes over any value. It may be nested as deeply as the reference implementation allows.
  void skip_value() {
    std::string open;  // the brackets that have to be closed
    do {
      skip_space();
      const char c = at_ < text_.size() ? text_[at_] : '\0';
      if (c == '{' || c == '[') {
        ++at_;
        if (!take(c == '{' ? '}' : ']')) {
          if (open.size() == most_nested) fail(concat("values nested more than ", most_nested, " deep"));
          open += c;
          if (c == '{') skip_key();
          continue;  // to the first item
        }
      } else if (c == '"') {
        (void)string();
      } else if (c == '-' || (c >= '0' && c <= '9')) {
        skip_number();
      } else if (!word("null") && !word("true") && !word("false")) {
        fail("wanted a value");
      }
      while (!open.empty() && !take(',')) {  // a value has ended, and perhaps what it was the last of
        want(open.back() == '{' ? '}' : ']');
        open.pop_back();
      }
      if (!open.empty() && open.back() == '{') skip_key();
    } while (!open.empty());
  }

  /// Calls item() for each item of a list that has been opened, up to and with the closing bracket.
  template <class Item>
  void items(char close, Item&& item) {
    if (take(close)) return;
    do item();
    while (take(','));
    want(close);
  }

 private:
  static constexpr std::size_t most_nested = 120;

  void skip_key() {
    (void)string();
    want(':');
  }
  void skip_digits() {
    const std::size_t first = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
    if (at_ == first) fail("wanted a digit");
  }
  void skip_number() {
    const auto next = [&](std::string_view any) {
      return at_ < text_.size() && any.find(text_[at_]) != std::string_view::npos;
    };
    if (next("-")) ++at_;
    if (next("0"))
      ++at_;
    else
      skip_digits();
    if (next(".")) ++at_, skip_digits();
    if (!next("eE")) return;
    ++at_;
    if (next("+-")) ++at_;
    skip_digits();
  }
  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
      ++at_;
  }

  std::uint32_t four_hex_digits() {
    std::uint32_t code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const std::size_t digit =
          at_ < text_.size() ? std::string_view("0123456789abcdefABCDEF").find(text_[at_]) : std::string_view::npos;
      if (digit == std::string_view::npos) fail("wanted four hexadecimal digits");
      code = 16 * code + std::uint32_t(digit < 16 ? digit : digit - 6);
    }
    return code;
  }

  void escape(std::string& value) {
    const char c = at_ < text_.size() ? text_[at_++] : '\0';
    const std::size_t simple = std::string_view("\"\\/bfnrt").find(c);
    if (simple != std::string_view::npos) {
      value += "\"\\/\b\f\n\r\t"[simple];
      return;
    }
    if (c != 'u') fail("an unknown escape in a string");
    std::uint32_t code = four_hex_digits();
    if (code >= 0xDC00 && code < 0xE000) fail("half of a surrogate pair");
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") fail("half of a surrogate pair");
      at_ += 2;
      const std::uint32_t low = four_hex_digits();
      if (low < 0xDC00 || low >= 0xE000) fail("half of a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    append_utf8(value, code);
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

/// `text` as a JSON string. Throws ValueError for invalid UTF-8.
inline std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = utf8_length(text.substr(i));
    if (length == 0) throw ValueError(concat("safetensors: a name or metadata text is not valid UTF-8: '", text, "'"));
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += text[i];
    } else if (c < 0x20) {
      constexpr std::string_view digits = "0123456789abcdef";
      out += "\\u00";
      out += digits[c >> 4];
      out += digits[c & 15u];
    } else {
      out.append(text.substr(i, length));
    }
    i += length;
  }
  return out + '"';
}

inline TensorInfo parse_tensor_info(JsonReader& json, std::string name) {
  TensorInfo info;
  info.name = std::move(name);
  const auto fail = [&](std::string_view what) { json.fail(concat("tensor ", shown(info.name), ": ", what)); };
  bool has_dtype = false, has_shape = false, has_offsets = false;
  const auto first_time = [&](bool& seen) {
    if (std::exchange(seen, true)) fail("a key twice");
  };
  std::uint64_t elements = 1;
  int extents = 0;
  std::string text;
  json.want('{');
  json.items('}', [&] {
    const std::string key = json.string();
    json.want(':');
    if (key == "dtype") {
      first_time(has_dtype);
      const std::string dtype = json.string();
      const auto row = std::find_if(dtypes.begin(), dtypes.end(), [&](const DTypeRow& r) { return r.name == dtype; });
      if (row == dtypes.end() || row->type == DType::other) fail(concat("type ", shown(dtype), " is not known"));
      info.dtype = row->type;
    } else if (key == "shape") {
      first_time(has_shape);
      bool none = false;
      json.want('[');
      json.items(']', [&] {
        const auto extent = std::uint64_t(json.number());
        none = none || extent == 0;
        if (extent != 0 && (__builtin_mul_overflow(elements, extent, &elements) || elements >> 63 != 0))
          fail("the number of elements does not fit 63 bits");
        if (extents < 64) text += concat(extents == 0 ? "" : "x", extent);
        if (extents++ >= Shape::max_rank) return;
        try {
          info.shape.push_back(std::int64_t(extent));
        } catch (const ShapeError& error) {
          fail(error.what());
        }
      });
      if (none) elements = 0;
    } else if (key == "data_offsets") {
      first_time(has_offsets);
      json.want('[');
      info.begin = std::uint64_t(json.number());
      json.want(',');
      info.end = std::uint64_t(json.number());
      json.want(']');
    } else {
      json.skip_value();  // as the reference implementation does
    }
  });
  if (!has_dtype || !has_shape || !has_offsets) fail("wanted dtype, shape and data_offsets");
  if (info.end < info.begin) fail("ends before it begins");
  const auto bits = std::uint64_t(row_of(info.dtype).bits),
             rest = elements % 8 * bits;  // of eight elements: as many bytes
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / 8, bits, &bytes) || __builtin_add_overflow(bytes, rest / 8, &bytes) ||
      rest % 8 != 0 || info.end - info.begin != bytes)
    fail(concat("shape ", extents == 0 ? "scalar" : text, " does not take the ", info.end - info.begin,
                " bytes it is given"));
  if (extents > Shape::max_rank) {
    info.shape = {};
    info.unreadable = concat("has ", extents, " extents (", text, "), and at most ", Shape::max_rank, " are supported");
  } else if (!is_readable(info.dtype)) {
    info.unreadable = unreadable_type(row_of(info.dtype).name);
  }
  return info;
}

}  // namespace detail

STRATA_INLINE SafetensorsHeader parse_safetensors_header(std::string_view text, std::uint64_t data_bytes,
                                                         const std::string& path) {
  SafetensorsHeader header;
  detail::JsonReader json(text, path);
  TensorIndex names;
  if (!text.starts_with('{')) json.fail("it does not begin with '{'");
  json.want('{');
  json.items('}', [&] {
    std::string name = json.string();
    json.want(':');
    if (!names.emplace(name, nullptr).second) json.fail(concat("the name ", detail::shown(name), " twice"));
    if (name != "__metadata__") {
      header.tensors.push_back(detail::parse_tensor_info(json, std::move(name)));
      return;
    }
    if (json.word("null")) return;  // as Python writes one that there is none of
    json.want('{');
    json.items('}', [&] {
      std::string key = json.string();
      json.want(':');
      std::string value = json.string();
      if (!header.metadata.emplace(std::move(key), std::move(value)).second) json.fail("a metadata key twice");
    });
  });
  json.want_end();

  std::sort(header.tensors.begin(), header.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
  });
  std::uint64_t end = 0;
  for (const TensorInfo& tensor : header.tensors) {
    if (tensor.begin != end)
      throw FileError(concat(path, ": tensor ", detail::shown(tensor.name), " begins at byte ", tensor.begin,
                             " of the data, wanted ", end, ": tensors overlap or leave a gap"));
    end = tensor.end;
  }
  if (end != data_bytes)
    throw FileError(concat(path, ": the tensors take ", end, " bytes, the file has ", data_bytes,
                           " after its header: it is cut short or has bytes too many"));
  return header;
}

STRATA_INLINE std::string format_safetensors_header(const SafetensorsHeader& header) {
  std::string text = "{";
  const auto comma = [&] {
    if (text.back() != '{') text += ',';
  };
  if (!header.metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : header.metadata) {
      comma();
      text += detail::json_string(key) + ":" + detail::json_string(value);
    }
    text += '}';
  }
  for (const TensorInfo& tensor : header.tensors) {
    comma();
    text += detail::json_string(tensor.name) + ":{\"dtype\":\"" + std::string(detail::row_of(tensor.dtype).name) +
            "\",\"shape\":[";
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) text += concat(axis ? "," : "", tensor.shape[axis]);
    text += concat("],\"data_offsets\":[", tensor.begin, ",", tensor.end, "]}");
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace strata::inline STRATA_ABI
