// What Strata throws. Every message says the operation, what was given, what was wanted and what to do.
//
//     try { auto image = st::load_image<1>("photo.png"); }
//     catch (const st::Error& error) { std::cerr << error.what() << '\n'; }
#pragma once

#include <cstddef>
#include <cstdio>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "strata/core/config.hpp"

namespace strata { inline namespace STRATA_ABI {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Shapes that do not fit an operation or each other.
struct ShapeError : Error {
  using Error::Error;
};
/// An option or argument out of its range.
struct ValueError : Error {
  using Error::Error;
};
/// A file that cannot be read, written or trusted. The text starts with the path.
struct FileError : Error {
  using Error::Error;
};
/// NaN or Inf where a finite number was needed.
struct NumericError : Error {
  using Error::Error;
};
/// A device that is not there, or does not do what was asked of it.
struct DeviceError : Error {
  using Error::Error;
};

namespace detail {

/// A part of a text. Numbers are written as printf's %d and %g. One type for all of them, so that concat() compiles
/// once and without the streams, whose header alone costs a third of a second.
class TextPart {
 public:
  TextPart(std::string_view text) : text_(text) {}
  TextPart(const std::string& text) : text_(text) {}
  TextPart(const char* text) : text_(text) {}
  TextPart(char letter) : digits_{letter}, text_(digits_, 1) {}
  template <class T>
    requires std::is_arithmetic_v<T>
  TextPart(T number) {
    int length = 0;
    if constexpr (std::is_floating_point_v<T>)
      length = std::snprintf(digits_, sizeof digits_, "%g", double(number));
    else if constexpr (std::is_signed_v<T>)
      length = std::snprintf(digits_, sizeof digits_, "%lld", static_cast<long long>(number));
    else
      length = std::snprintf(digits_, sizeof digits_, "%llu", static_cast<unsigned long long>(number));
    text_ = std::string_view(digits_, std::size_t(length));
  }
  TextPart(const TextPart&) = delete;
  TextPart& operator=(const TextPart&) = delete;

  std::string_view text() const { return text_; }

 private:
  char digits_[32];
  std::string_view text_;
};

inline std::string join(const TextPart* parts, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) out += parts[i].text();
  return out;
}

}  // namespace detail

/// Memory that there is not. It is caught where std::bad_alloc is and is no Error; making one takes no memory.
class OutOfMemory : public std::bad_alloc {
 public:
  /// `asked` bytes, of what `where` names, which holds `held` bytes already.
  OutOfMemory(std::size_t asked, const char* where, std::size_t held) noexcept {
    char amounts[2][32];
    std::snprintf(
        text_, sizeof text_,
        "%s: not enough memory for a block of %s; %s are in use: use smaller batches or images, or free others", where,
        amount(asked, amounts[0]), amount(held, amounts[1]));
  }
  const char* what() const noexcept override { return text_; }

 private:
  static const char* amount(std::size_t bytes, char (&text)[32]) noexcept {
    if (bytes < 10000)
      std::snprintf(text, sizeof text, "%zu bytes", bytes);
    else
      std::snprintf(text, sizeof text, "%.4g %s", double(bytes) / (bytes < 1000000000 ? 1e6 : 1e9),
                    bytes < 1000000000 ? "MB" : "GB");
    return text;
  }
  char text_[200];
};

/// The parts written one after another, for the texts of errors: concat("got ", 3, ", wanted ", 4).
template <class... Parts>
std::string concat(const Parts&... parts) {
  const detail::TextPart texts[] = {detail::TextPart(parts)...};
  return detail::join(texts, sizeof...(Parts));
}

}}  // namespace strata::STRATA_ABI
