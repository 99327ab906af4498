// What Strata throws. Every message says the operation, what was given, what was wanted and what to do.
//
//     try { auto image = st::load_image<1>("photo.png"); }
//     catch (const st::Error& error) { std::cerr << error.what() << '\n'; }
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

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

/// The parts written one after another, for the texts of errors: concat("got ", 3, ", wanted ", 4).
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace strata::inline STRATA_ABI
