// Numbers as they lie in a device's memory, read and written one at a time as double.
#pragma once

#include <cstdint>
#include <cstring>

namespace fake_device {

enum class Type { fp32, fp16, bf16 };

inline std::size_t size_of(Type type) { return type == Type::fp32 ? 4 : 2; }

inline double read(Type type, const void* address) {
  if (type == Type::fp32) {
    float value;
    std::memcpy(&value, address, 4);
    return double(value);
  }
  std::uint16_t bits;
  std::memcpy(&bits, address, 2);
  if (type == Type::bf16) {
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float value;
    std::memcpy(&value, &wide, 4);
    return double(value);
  }
  _Float16 value;
  std::memcpy(&value, &bits, 2);
  return double(value);
}

/// To nearest, ties to even. NaN stays NaN.
inline void write(Type type, void* address, double number) {
  const float value = float(number);
  if (type == Type::fp32) {
    std::memcpy(address, &value, 4);
  } else if (type == Type::bf16) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const std::uint16_t half =
        value != value ? std::uint16_t{0x7FFF} : std::uint16_t((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
    std::memcpy(address, &half, 2);
  } else {
    const _Float16 half = _Float16(number);
    std::memcpy(address, &half, 2);
  }
}

/// The number with 10 bits of fraction, as tensor cores read fp32.
inline double to_tf32(double number) {
  const float value = float(number);
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  bits = (bits + 0xFFF + (bits >> 13 & 1)) & ~std::uint32_t{0x1FFF};
  float rounded;
  std::memcpy(&rounded, &bits, 4);
  return double(rounded);
}

}  // namespace fake_device
