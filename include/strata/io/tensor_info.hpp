// What is said of a tensor in a file: its name, type, shape and place.
//
//     for (const st::TensorInfo& tensor : file.tensors()) std::cout << tensor.name << ' ' << tensor.shape.str() <<
//     '\n';
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "strata/core/shape.hpp"

namespace strata::inline STRATA_ABI {

/// Types of numbers in files, by safetensors' names. Those from u64 on are known and not read; `other` has no such
/// name.
enum class DType {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u8,
  boolean,
  u32,
  u16,
  u64,
  c64,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f6_e2m3,
  f6_e3m2,
  f4,
  other,
};

namespace detail {

struct DTypeRow {
  std::string_view name;
  DType type;
  int bits;
  int bytes = bits / 8;  ///< 0 for parts of a byte
};
inline constexpr std::array<DTypeRow, 23> dtypes{{{"F64", DType::f64, 64},
                                                  {"F32", DType::f32, 32},
                                                  {"F16", DType::f16, 16},
                                                  {"BF16", DType::bf16, 16},
                                                  {"I64", DType::i64, 64},
                                                  {"I32", DType::i32, 32},
                                                  {"I16", DType::i16, 16},
                                                  {"I8", DType::i8, 8},
                                                  {"U8", DType::u8, 8},
                                                  {"BOOL", DType::boolean, 8},
                                                  {"U32", DType::u32, 32},
                                                  {"U16", DType::u16, 16},
                                                  {"U64", DType::u64, 64},
                                                  {"C64", DType::c64, 64},
                                                  {"F8_E5M2", DType::f8_e5m2, 8},
                                                  {"F8_E4M3", DType::f8_e4m3, 8},
                                                  {"F8_E8M0", DType::f8_e8m0, 8},
                                                  {"F8_E4M3FNUZ", DType::f8_e4m3fnuz, 8},
                                                  {"F8_E5M2FNUZ", DType::f8_e5m2fnuz, 8},
                                                  {"F6_E2M3", DType::f6_e2m3, 6},
                                                  {"F6_E3M2", DType::f6_e3m2, 6},
                                                  {"F4", DType::f4, 4},
                                                  {"other", DType::other, 0}}};

inline const DTypeRow& row_of(DType type) { return dtypes[std::size_t(type)]; }

/// Whether numbers of the type are read.
constexpr bool is_readable(DType type) { return type < DType::u64; }

/// What to say of a tensor of a type that is not.
std::string unreadable_type(std::string_view name);

/// The length of the valid UTF-8 character at the start of `text`; 0 where there is none.
std::size_t utf8_length(std::string_view text);

bool is_utf8(std::string_view text);

/// A text of a file as it may be shown on a terminal: in quotes, what is no valid printing character as '?', cut when
/// long.
std::string shown(std::string_view text);

}  // namespace detail

using Metadata = std::map<std::string, std::string>;

/// One tensor of a file.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t begin = 0, end = 0;  ///< its bytes, counted from the end of the header
  /// Why its numbers cannot be read, as of a type or with extents that nothing here has; empty: they can.
  std::string unreadable = {};
};

/// Tensors of a header by name.
using TensorIndex = std::map<std::string, const TensorInfo*>;

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/io/tensor_info_impl.hpp"
#endif
