// The numbers of tensors in files: their types converted, and PyTorch's memory order turned to Strata's and back.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "strata/autograd/parameter.hpp"
#include "strata/io/tensor_info.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

static_assert(std::endian::native == std::endian::little, "strata: files of weights are little-endian");

/// IEEE 754 half precision.
inline float half_to_float(std::uint16_t bits) {
  const std::uint32_t sign = (bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31u, mantissa = bits & 1023u;
  if (exponent == 0) {
    const float value = float(mantissa) * 0x1p-24f;
    return sign ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}
inline float bfloat_to_float(std::uint16_t bits) { return std::bit_cast<float>(std::uint32_t(bits) << 16); }

constexpr bool is_integer(DType type) {
  return type == DType::i64 || type == DType::i32 || type == DType::i16 || type == DType::i8 || type == DType::u8 ||
         type == DType::u16 || type == DType::u32 || type == DType::boolean;
}

// The code below works on bytes and on types known at run time, not on templates: a program that reads one file should
// not have to compile a loop for each pair of types.

template <class From>
From load_as(const std::byte* bytes) {
  From value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

inline std::int64_t load_integer(DType type, const std::byte* bytes) {
  switch (type) {
    case DType::i64: return load_as<std::int64_t>(bytes);
    case DType::i32: return load_as<std::int32_t>(bytes);
    case DType::i16: return load_as<std::int16_t>(bytes);
    case DType::i8: return load_as<std::int8_t>(bytes);
    case DType::u8: return load_as<std::uint8_t>(bytes);
    case DType::u16: return load_as<std::uint16_t>(bytes);
    case DType::u32: return load_as<std::uint32_t>(bytes);
    default: return load_as<std::uint8_t>(bytes) != 0;
  }
}

inline double load_number(DType type, const std::byte* bytes) {
  switch (type) {
    case DType::f64: return load_as<double>(bytes);
    case DType::f32: return double(load_as<float>(bytes));
    case DType::f16: return double(half_to_float(load_as<std::uint16_t>(bytes)));
    case DType::bf16: return double(bfloat_to_float(load_as<std::uint16_t>(bytes)));
    default: return double(load_integer(type, bytes));
  }
}

/// Converts `count` elements to F32, F64 or I64.
inline void convert_elements(DType from, const std::byte* in, DType to, std::byte* out, std::int64_t count) {
  const int in_bytes = row_of(from).bytes, out_bytes = row_of(to).bytes;
  for (std::int64_t i = 0; i < count; ++i, in += in_bytes, out += out_bytes) {
    if (to == DType::i64) {
      const std::int64_t value = load_integer(from, in);
      std::memcpy(out, &value, sizeof value);
    } else if (to == DType::f64) {
      const double value = load_number(from, in);
      std::memcpy(out, &value, sizeof value);
    } else {
      const float value = static_cast<float>(load_number(from, in));
      std::memcpy(out, &value, sizeof value);
    }
  }
}

/// Copies a tensor of elements of 4 or 8 bytes between Strata's memory order and PyTorch's.
inline void reorder(const Shape& shape, int width, const std::byte* from, std::byte* to, bool to_pytorch) {
  if (shape.size() == 0) return;
  if (shape.rank() != 4) {
    std::memcpy(to, from, std::size_t(shape.size() * width));
    return;
  }
  const std::int64_t channels = shape[1], pixels = shape[2] * shape[3];
  for (std::int64_t n = 0; n < shape[0]; ++n)
    for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
      for (std::int64_t c = 0; c < channels; ++c) {
        const std::int64_t ours = ((n * pixels + pixel) * channels + c) * width;
        const std::int64_t theirs = ((n * channels + c) * pixels + pixel) * width;
        const std::byte* source = from + (to_pytorch ? ours : theirs);
        std::byte* target = to + (to_pytorch ? theirs : ours);
        if (width == 4)
          std::memcpy(target, source, 4);
        else
          std::memcpy(target, source, 8);
      }
}

/// How many elements lie between neighbours along each axis.
using Stride = std::array<std::int64_t, std::size_t(Shape::max_rank)>;

/// Elements of `width` bytes in PyTorch's order, from the stretch of memory that they lie in with these strides.
inline std::vector<std::byte> gather(const Shape& shape, const Stride& stride, std::size_t width,
                                     std::vector<std::byte> span) {
  std::int64_t dense = 1;
  bool contiguous = true;
  for (int axis = shape.rank(); axis-- > 0; dense *= shape[axis])
    contiguous = contiguous && (shape[axis] <= 1 || stride[std::size_t(axis)] == dense);
  if (contiguous || shape.size() == 0) return span;

  Stride extent{1, 1, 1, 1}, step{};
  for (int axis = 0; axis < shape.rank(); ++axis) {
    extent[std::size_t(axis)] = shape[axis];
    step[std::size_t(axis)] = stride[std::size_t(axis)];
  }
  std::vector<std::byte> out(std::size_t(shape.size()) * width);
  std::byte* to = out.data();
  for (std::int64_t a = 0; a < extent[0]; ++a)
    for (std::int64_t b = 0; b < extent[1]; ++b)
      for (std::int64_t c = 0; c < extent[2]; ++c)
        for (std::int64_t d = 0; d < extent[3]; ++d, to += width)
          std::memcpy(to, span.data() + std::size_t(a * step[0] + b * step[1] + c * step[2] + d * step[3]) * width,
                      width);
  return out;
}

inline DType dtype_of(const AnyTensor& tensor) {
  return std::array{DType::f32, DType::f64, DType::i64}[tensor.index()];
}
inline std::byte* bytes_of(AnyTensor& tensor) {
  if (auto* floats = std::get_if<Tensor<float>>(&tensor)) return reinterpret_cast<std::byte*>(floats->data());
  if (auto* doubles = std::get_if<Tensor<double>>(&tensor)) return reinterpret_cast<std::byte*>(doubles->data());
  return reinterpret_cast<std::byte*>(std::get<Tensor<std::int64_t>>(tensor).data());
}
inline const std::byte* bytes_of(const AnyTensor& tensor) { return bytes_of(const_cast<AnyTensor&>(tensor)); }

/// An uninitialised tensor of the same type.
inline AnyTensor make_tensor(const AnyTensor& like, const Shape& shape) {
  if (like.index() == 0) return Tensor<float>(shape);
  if (like.index() == 1) return Tensor<double>(shape);
  return Tensor<std::int64_t>(shape);
}

/// A tensor of the type of `like` from elements of another type in PyTorch's memory order. Only whole numbers become
/// whole numbers: the caller has seen to it.
inline AnyTensor tensor_from(std::vector<std::byte> bytes, DType from, const Shape& shape, const AnyTensor& like) {
  const DType type = dtype_of(like);
  const int width = row_of(type).bytes;
  if (from != type) {
    std::vector<std::byte> converted(std::size_t(shape.size() * width));
    convert_elements(from, bytes.data(), type, converted.data(), shape.size());
    bytes = std::move(converted);
  }
  AnyTensor out = make_tensor(like, shape);
  reorder(shape, width, bytes.data(), bytes_of(out), false);
  return out;
}

}}}  // namespace strata::STRATA_ABI::detail
