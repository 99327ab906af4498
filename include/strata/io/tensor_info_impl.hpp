// Definitions of io/tensor_info.hpp.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "strata/io/tensor_info.hpp"

namespace strata::inline STRATA_ABI::detail {

STRATA_INLINE std::string unreadable_type(std::string_view name) {
  return "is of the type " + std::string(name) + ", which is not read: convert it to float32 before it is saved";
}

STRATA_INLINE std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? unsigned(static_cast<unsigned char>(text[i])) : 0u; };
  const unsigned first = byte(0);
  if (text.empty()) return 0;
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xC2 && first < 0xE0   ? 2
                             : first >= 0xE0 && first < 0xF0 ? 3
                             : first >= 0xF0 && first < 0xF5 ? 4
                                                             : 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0u) != 0x80) return 0;
  if (length == 3 && ((first == 0xE0 && byte(1) < 0xA0) || (first == 0xED && byte(1) >= 0xA0))) return 0;
  if (length == 4 && ((first == 0xF0 && byte(1) < 0x90) || (first == 0xF4 && byte(1) >= 0x90))) return 0;
  return length;
}

STRATA_INLINE bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

STRATA_INLINE std::string shown(std::string_view text) {
  constexpr std::size_t most = 200;
  std::string out = "'";
  for (std::size_t i = 0; i < text.size();) {
    if (out.size() > most) {
      out += "...";
      break;
    }
    const std::size_t length = utf8_length(text.substr(i));
    const auto first = static_cast<unsigned char>(text[i]);
    const bool control =
        first < 0x20 || first == 0x7F || (first == 0xC2 && static_cast<unsigned char>(text[i + 1]) < 0xA0);
    if (length == 0 || control)
      out += '?';
    else
      out.append(text.substr(i, length));
    i += length == 0 ? 1 : length;
  }
  return out + "'";
}

}  // namespace strata::inline STRATA_ABI::detail
