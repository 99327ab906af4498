#include "cuda_matrix.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "access.hpp"
#include "block.hpp"
#include "counting.hpp"

namespace cuda_on_host {
namespace {

struct MatrixOperation {
  float* d;
  const std::uint32_t* a;
  const std::uint32_t* b;
};

double value_of(MatrixFormat format, std::uint32_t word, int which) {
  switch (format) {
    case MatrixFormat::tf32:
      return double(std::bit_cast<float>(word & 0xffffe000u));  // the hardware ignores the rest
    case MatrixFormat::fp16:
      return double(half_to_float(std::uint16_t(word >> 16 * which)));
    case MatrixFormat::bf16:
      return double(std::bit_cast<float>((word >> 16 * which) << 16));
  }
  return 0;
}

template <MatrixFormat Format>
void multiply(unsigned, void* const (&data)[32]) {
  constexpr int depth = Format == MatrixFormat::tf32 ? 8 : 16, each = Format == MatrixFormat::tf32 ? 1 : 2;
  double a[16][depth], b[depth][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& operation = *static_cast<const MatrixOperation*>(data[lane]);
    const int group = lane / 4, t = lane % 4;
    for (int i = 0; i < each; ++i) {
      const int low = each * t + i, high = low + depth / 2;
      a[group][low] = value_of(Format, operation.a[0], i);
      a[group + 8][low] = value_of(Format, operation.a[1], i);
      a[group][high] = value_of(Format, operation.a[2], i);
      a[group + 8][high] = value_of(Format, operation.a[3], i);
      b[low][group] = value_of(Format, operation.b[0], i);
      b[high][group] = value_of(Format, operation.b[1], i);
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& operation = *static_cast<const MatrixOperation*>(data[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + (i >= 2 ? 8 : 0), column = lane % 4 * 2 + i % 2;
      double sum = double(operation.d[i]);
      for (int k = 0; k < depth; ++k) sum += a[row][k] * b[k][column];
      operation.d[i] = float(sum);
    }
  }
  count_matrix_operations(16 * 8 * depth);
}

}  // namespace

void begin_copy(void* to, const void* from, std::size_t bytes) {
  const void* caller = __builtin_return_address(0);
  note_access(to, bytes, Access::write, caller);
  if (from != nullptr)
    note_access(from, bytes, Access::read, static_cast<const char*>(caller) + 1);  // another instruction
  std::memset(to, 0xFF, bytes);
  block.current->copies.push_back({to, from, bytes, block.current->copy_groups});
}
void commit_copies() { ++block.current->copy_groups; }
void wait_for_copies(unsigned pending_groups) {
  Thread& thread = *block.current;
  std::size_t kept = 0;
  for (const PendingCopy& copy : thread.copies) {
    if (copy.group + pending_groups >= thread.copy_groups) {
      thread.copies[kept++] = copy;
    } else if (copy.from != nullptr) {
      std::memcpy(copy.to, copy.from, copy.bytes);
    } else {
      std::memset(copy.to, 0, copy.bytes);
    }
  }
  thread.copies.resize(kept);
}

std::uint16_t float_to_half(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value), sign = bits >> 16 & 0x8000u,
                      magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fff;                            // NaN
  if (magnitude >= 0x477ff000u) return std::uint16_t(sign | 0x7c00u);    // rounds to infinity
  if (magnitude < 0x38800000u) {                                         // below the least normal number, 2^-14
    const float scaled = std::bit_cast<float>(magnitude) * 16777216.0f;  // in units of 2^-24, exact
    return std::uint16_t(sign | std::uint32_t(std::nearbyint(scaled)));
  }
  return std::uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = std::uint32_t{half & 0x8000u} << 16, exponent = half >> 10 & 31u, mantissa = half & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent == 0) return (sign != 0 ? -1.0f : 1.0f) * float(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

void mma(MatrixFormat format, float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
         Location location) {
  MatrixOperation operation{d, a, b};
  const Resolve resolve = format == MatrixFormat::tf32   ? &multiply<MatrixFormat::tf32>
                          : format == MatrixFormat::fp16 ? &multiply<MatrixFormat::fp16>
                                                         : &multiply<MatrixFormat::bf16>;
  warp_operation(0xffffffffu, resolve, &operation, false, "mma", location);
}

}  // namespace cuda_on_host
