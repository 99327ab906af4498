// The inner loops of the convolutions: a block's 128 threads add the product of a piece of A and a piece of B, both in
// shared memory and `depth` deep, to sums in registers. Several ways to multiply, one interface:
//
//     typename Product::Sums sums{};                              // spread over the block's registers
//     Product::multiply(a, b, sums);                              // sums += a * b
//     Product::visit(sums, [&](int row, int column, Numbers<Product::width> part) {...});      // every part once
//
// B lies as b[k * b_distance + column]. A lies with k innermost, a[row * a_distance + k], where rows are pixels, and
// with rows innermost, a[k * a_distance + row], where k counts pixels. The distances are such that lanes served
// together never meet in a bank: FMA reads 16 bytes, and the 8 lanes of a quarter warp read 128 bytes in a row or one
// address; mma reads 4 or 8 bytes, with lane / 4 going one way and lane % 4 the other. Eight lanes that write 64 bytes
// of two rows of A meet in no bank when the rows lie row_partner apart.
#pragma once

#include <cstdint>

#include "strata/cuda/mma.cuh"
#include "strata/cuda/numbers.cuh"
#include "strata/math/precision.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int product_block = 128;
inline constexpr int product_depth = 16;

/// float32 by fused multiply-adds, A with k innermost: 128 rows, Columns columns. A thread has rows warp*32 + lane/8 +
/// 4*i and columns (lane % 8)*4 + 32*j to + 3.
template <int Columns>
struct FmaByPixels {
  static constexpr int rows = 128, columns = Columns, width = 4, groups = Columns / 32;
  static constexpr int a_distance = product_depth + 4, b_distance = Columns, row_partner = 4;
  struct Sums {
    float v[8][groups][4];
  };

  STRATA_DEVICE_MEMBER static void multiply(const float* a, const float* b, Sums& sums) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    a += (warp * 32 + lane / 8) * a_distance;
    b += lane % 8 * 4;
#pragma unroll
    for (int k = 0; k < product_depth; k += 4) {
      Numbers<4> left[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) left[i] = load<4>(a + 4 * i * a_distance + k);
#pragma unroll
      for (int step = 0; step < 4; ++step)
#pragma unroll
        for (int j = 0; j < groups; ++j) {
          const Numbers<4> right = load<4>(b + (k + step) * b_distance + 32 * j);
#pragma unroll
          for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int c = 0; c < 4; ++c) sums.v[i][j][c] = fmaf(left[i].v[step], right.v[c], sums.v[i][j][c]);
        }
    }
  }

  template <class F>
  STRATA_DEVICE_MEMBER static void visit(const Sums& sums, const F& f) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < groups; ++j)
        f(warp * 32 + lane / 8 + 4 * i, lane % 8 * 4 + 32 * j,
          Numbers<4>{{sums.v[i][j][0], sums.v[i][j][1], sums.v[i][j][2], sums.v[i][j][3]}});
  }
};

/// float32 by fused multiply-adds, A with rows innermost: 64 rows, 64 columns. A thread has rows (t / 16)*4 + 32*i to +
/// 3 and columns (t % 16)*4 to + 3.
struct FmaByChannels {
  static constexpr int rows = 64, columns = 64, width = 4;
  static constexpr int a_distance = 64, b_distance = 64;
  struct Sums {
    float v[2][4][4];
  };

  STRATA_DEVICE_MEMBER static void multiply(const float* a, const float* b, Sums& sums) {
    a += int(threadIdx.x) / 16 * 4;
    b += int(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int k = 0; k < product_depth; ++k) {
      const Numbers<4> right = load<4>(b + k * b_distance);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const Numbers<4> left = load<4>(a + k * a_distance + 32 * i);
#pragma unroll
        for (int r = 0; r < 4; ++r)
#pragma unroll
          for (int c = 0; c < 4; ++c) sums.v[i][r][c] = fmaf(left.v[r], right.v[c], sums.v[i][r][c]);
      }
    }
  }

  template <class F>
  STRATA_DEVICE_MEMBER static void visit(const Sums& sums, const F& f) {
    const int row = int(threadIdx.x) / 16 * 4, column = int(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int r = 0; r < 4; ++r)
        f(row + 32 * i + r, column,
          Numbers<4>{{sums.v[i][r][0], sums.v[i][r][1], sums.v[i][r][2], sums.v[i][r][3]}});
  }
};

/// Tensor cores: the factors are rounded to P, the sums are float32. Warps stand 2 x 2; each has Rows/2 x Columns/2, in
/// tiles of 16 x 8. In a tile a lane has rows lane/4 and lane/4 + 8, columns lane%4*2 and + 1.
template <Precision P, int Rows, int Columns, bool PixelsAreRows>
struct Mma {
  static_assert(P != Precision::fp32);
  static constexpr bool tf32 = P == Precision::tf32;
  static constexpr int rows = Rows, columns = Columns, width = 2;
  static constexpr int row_tiles = Rows / 32, column_tiles = Columns / 16, tile_depth = tf32 ? 8 : 16;
  static constexpr int a_distance = PixelsAreRows ? product_depth + (tf32 ? 4 : 8) : Rows + (tf32 ? 8 : 4);
  static constexpr int b_distance = Columns + (tf32 ? 8 : 4), row_partner = tf32 ? 4 : 2;
  struct Sums {
    float v[row_tiles][column_tiles][4];
  };

  STRATA_DEVICE_MEMBER static std::uint32_t pack(float low, float high) {
    if constexpr (P == Precision::bf16)
      return pack_bf16(low, high);
    else
      return pack_fp16(low, high);
  }
  /// One register of A: row, and k (tf32) or k and k + 1.
  STRATA_DEVICE_MEMBER static std::uint32_t a_register(const float* a, int row, int k) {
    if constexpr (tf32) {
      return to_tf32(PixelsAreRows ? a[row * a_distance + k] : a[k * a_distance + row]);
    } else if constexpr (PixelsAreRows) {
      const Numbers<2> pair = load<2>(a + row * a_distance + k);
      return pack(pair.v[0], pair.v[1]);
    } else {
      return pack(a[k * a_distance + row], a[(k + 1) * a_distance + row]);
    }
  }
  STRATA_DEVICE_MEMBER static std::uint32_t b_register(const float* b, int k, int column) {
    if constexpr (tf32)
      return to_tf32(b[k * b_distance + column]);
    else
      return pack(b[k * b_distance + column], b[(k + 1) * b_distance + column]);
  }

  STRATA_DEVICE_MEMBER static void multiply(const float* a, const float* b, Sums& sums) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, group = lane / 4;
    const int place = lane % 4 * (tf32 ? 1 : 2);
    const int first_row = warp / 2 * (Rows / 2) + group, first_column = warp % 2 * (Columns / 2) + group;
#pragma unroll
    for (int k = 0; k < product_depth; k += tile_depth) {
      const int low = k + place, high = low + tile_depth / 2;
      std::uint32_t right[column_tiles][2];
#pragma unroll
      for (int j = 0; j < column_tiles; ++j) {
        right[j][0] = b_register(b, low, first_column + 8 * j);
        right[j][1] = b_register(b, high, first_column + 8 * j);
      }
#pragma unroll
      for (int i = 0; i < row_tiles; ++i) {
        const int row = first_row + 16 * i;
        const std::uint32_t left[4] = {a_register(a, row, low), a_register(a, row + 8, low), a_register(a, row, high),
                                       a_register(a, row + 8, high)};
#pragma unroll
        for (int j = 0; j < column_tiles; ++j) {
          if constexpr (tf32)
            mma_tf32(sums.v[i][j], left, right[j]);
          else if constexpr (P == Precision::bf16)
            mma_bf16(sums.v[i][j], left, right[j]);
          else
            mma_fp16(sums.v[i][j], left, right[j]);
        }
      }
    }
  }

  template <class F>
  STRATA_DEVICE_MEMBER static void visit(const Sums& sums, const F& f) {
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    const int row = warp / 2 * (Rows / 2) + lane / 4, column = warp % 2 * (Columns / 2) + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < row_tiles; ++i)
#pragma unroll
      for (int j = 0; j < column_tiles; ++j) {
        f(row + 16 * i, column + 8 * j, Numbers<2>{{sums.v[i][j][0], sums.v[i][j][1]}});
        f(row + 16 * i + 8, column + 8 * j, Numbers<2>{{sums.v[i][j][2], sums.v[i][j][3]}});
      }
  }
};

}}}  // namespace strata::STRATA_ABI::cuda
