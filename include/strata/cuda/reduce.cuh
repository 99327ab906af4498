// Sums in an order that the size alone fixes: of all elements to one number, and of the rows of a matrix to one row.
//
//     status = sum_all(stream, size, SquareTerm{x}, workspace, Total{factor, result});
//     status = sum_columns<1>(stream, pixels, channels, Column{dy}, workspace, AddBias{dbias, true});
//
// Both take two launches. In the first each thread adds up a few numbers, and its block adds the threads' sums pair by
// pair; in the second one block, or one column of threads for every channel, adds up the blocks' sums. So a number
// passes through a few dozen roundings whatever the size, and no atomic addition makes the order a matter of chance.
#pragma once

#include <cstdint>

#include "strata/cuda/numbers.cuh"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

// ---- all elements to one number

inline constexpr int sum_block = 256;
inline constexpr std::int64_t sum_chunk = 4096;  // elements of a block, at least
inline constexpr std::int64_t sum_blocks = 1024; // blocks, at most

struct SumPlan {
  std::int64_t chunk, blocks;
  explicit SumPlan(std::int64_t size) {
    const std::int64_t wanted = ceil_div(size, sum_blocks);
    chunk = ceil_div(wanted < sum_chunk ? sum_chunk : wanted, 4 * sum_block) * 4 * sum_block;
    blocks = size > 0 ? ceil_div(size, chunk) : 0;
  }
  /// Floats of workspace.
  std::int64_t workspace() const { return blocks > 0 ? blocks : 1; }
};

/// partial[block] = sum of term.at<1>(i) over the block's chunk. term.at<W>(i) gives W numbers.
template <class Term, bool Vectors>
STRATA_GLOBAL void __launch_bounds__(sum_block)
    sum_chunks(std::int64_t size, std::int64_t chunk, Term term, float* __restrict__ partial) {
  STRATA_SHARED(float, scratch, [sum_block / 32]);
  const std::int64_t begin = std::int64_t(blockIdx.x) * chunk, end = begin + chunk < size ? begin + chunk : size;
  float total = 0;
  if constexpr (Vectors) {
    for (std::int64_t i = begin + 4 * std::int64_t(threadIdx.x); i < end; i += 4 * sum_block) {
      if (i + 4 <= end) {
        const Numbers<4> v = term.template at<4>(i);
        total += (v.v[0] + v.v[1]) + (v.v[2] + v.v[3]);
      } else {
        for (std::int64_t k = i; k < end; ++k) total += term.template at<1>(k).v[0];
      }
    }
  } else {
    for (std::int64_t i = begin + std::int64_t(threadIdx.x); i < end; i += sum_block)
      total += term.template at<1>(i).v[0];
  }
  total = block_sum<sum_block>(total, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// finish(sum of partial[0 .. count)), by one block.
template <class Finish>
STRATA_GLOBAL void __launch_bounds__(sum_block)
    sum_partials(int count, const float* __restrict__ partial, Finish finish) {
  STRATA_SHARED(float, scratch, [sum_block / 32]);
  float total = 0;
  for (int i = int(threadIdx.x); i < count; i += sum_block) total += partial[i];
  total = block_sum<sum_block>(total, scratch);
  if (threadIdx.x == 0) finish(total);
}

/// *result = factor * total.
struct WriteTotal {
  float factor;
  float* result;
  STRATA_DEVICE_MEMBER void operator()(float total) const { *result = factor * total; }
};

/// workspace: SumPlan(size).workspace() floats.
template <class Term, class Finish>
cudaError_t sum_all(cudaStream_t stream, std::int64_t size, const Term& term, float* workspace, const Finish& finish) {
  const SumPlan plan(size);
  if (plan.blocks > 0) {
    const dim3 grid{unsigned(plan.blocks)}, block(sum_block);
    const cudaError_t status =
        term.aligned() ? launch<&sum_chunks<Term, true>>(grid, block, 0, stream, size, plan.chunk, term, workspace)
                       : launch<&sum_chunks<Term, false>>(grid, block, 0, stream, size, plan.chunk, term, workspace);
    if (status != cudaSuccess) return status;
  }
  return launch<&sum_partials<Finish>>(dim3(1), dim3(sum_block), 0, stream, int(plan.blocks), workspace, finish);
}

/// Terms: the numbers themselves.
struct ValueTerm {
  const float* x;
  bool aligned() const { return aligned16(x); }
  template <int W>
  STRATA_DEVICE_MEMBER Numbers<W> at(std::int64_t i) const { return load<W>(x + i); }
};

// ---- the rows of a matrix to one row

/// How the rows of a (rows, channels) matrix are cut. A block has `lanes` threads along the channels, one for each quad
/// of them, and 256 / lanes rows of threads.
struct ColumnPlan {
  static constexpr int block = 256;
  int lanes, groups, chunks;
  std::int64_t rows_per_chunk;

  /// For one of `images` matrices: with many, each is cut into fewer pieces.
  ColumnPlan(std::int64_t rows, int channels, std::int64_t images = 1) {
    const int quads = ceil_div(channels, 4);
    lanes = 1;
    while (lanes < quads && lanes < 32) lanes *= 2;
    groups = ceil_div(quads, lanes);
    const std::int64_t least = std::int64_t(block / lanes) * 8;
    const std::int64_t alone = groups >= 16 ? 64 : 512 / groups * 2;
    const std::int64_t most = images <= 1 ? alone : alone / images > 16 ? alone / images : 16;
    const std::int64_t wanted = ceil_div(rows, most);
    rows_per_chunk = ceil_div(wanted < least ? least : wanted, least) * least;
    chunks = int(ceil_div(rows, rows_per_chunk));
  }
  /// Floats of workspace for `sums` sums of each channel.
  std::int64_t workspace(int channels, int sums) const { return std::int64_t(chunks) * sums * channels; }
};

/// W numbers of `row` from channel c on; zeros behind `channels`. Vectors: channels is a multiple of 4 and row is
/// aligned.
template <bool Vectors>
STRATA_DEVICE Numbers<4> load_quad(const float* row, int c, int channels) {
  if constexpr (Vectors) {
    return load<4>(row + c);
  } else {
    Numbers<4> out;
#pragma unroll
    for (int k = 0; k < 4; ++k) out.v[k] = c + k < channels ? row[c + k] : 0.0f;
    return out;
  }
}
template <bool Vectors>
STRATA_DEVICE void store_quad(float* row, int c, int channels, const Numbers<4>& numbers) {
  if constexpr (Vectors) {
    store<4>(row + c, numbers);
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      if (c + k < channels) row[c + k] = numbers.v[k];
  }
}

/// partial[image][chunk][sum][channel] = the sum over the chunk's rows of what term.add adds. A term of several
/// matrices, one for each image, asks blockIdx.z which one it is. term.add<Vectors>(row, c, channels, sums) adds to
/// Sums quads. Grid: (groups, chunks, images).
template <int Sums, class Term, bool Vectors>
STRATA_GLOBAL void __launch_bounds__(ColumnPlan::block)
    sum_column_chunks(std::int64_t rows, int channels, int lanes, std::int64_t rows_per_chunk, Term term,
                      float* __restrict__ partial) {
  STRATA_SHARED(float, shared, [Sums][ColumnPlan::block][4]);
  const int t = int(threadIdx.x), lane = t % lanes, slot = t / lanes, slots = ColumnPlan::block / lanes;
  const int c = 4 * (int(blockIdx.x) * lanes + lane);
  const std::int64_t begin = std::int64_t(blockIdx.y) * rows_per_chunk;
  const std::int64_t end = begin + rows_per_chunk < rows ? begin + rows_per_chunk : rows;
  Numbers<4> sums[Sums] = {};
  if (c < channels) {
    const typename Term::template Column<Vectors> column(term, c, channels);
#pragma unroll 4
    for (std::int64_t row = begin + slot; row < end; row += slots) column.add(row, sums);
  }
#pragma unroll
  for (int s = 0; s < Sums; ++s) store<4>(shared[s][t], sums[s]);
  for (int half = slots / 2; half > 0; half /= 2) {
    __syncthreads();
    if (slot < half)
#pragma unroll
      for (int s = 0; s < Sums; ++s) {
        const Numbers<4> other = load<4>(shared[s][t + half * lanes]);
#pragma unroll
        for (int k = 0; k < 4; ++k) sums[s].v[k] += other.v[k];
        store<4>(shared[s][t], sums[s]);
      }
  }
  if (slot == 0 && c < channels)
#pragma unroll
    for (int s = 0; s < Sums; ++s)
      store_quad<Vectors>(partial + ((std::int64_t(blockIdx.z) * gridDim.y + blockIdx.y) * Sums + s) * channels, c,
                          channels, sums[s]);
}

inline constexpr int finish_channels = 32, finish_slots = 8;

/// finish(channel, totals) with the sums over all chunks. Block: 32 channels, 8 rows of threads. Grid: ceil(channels /
/// 32).
template <int Sums, class Finish>
STRATA_GLOBAL void __launch_bounds__(finish_channels* finish_slots)
    sum_column_partials(int channels, int chunks, const float* __restrict__ partial, Finish finish) {
  STRATA_SHARED(float, shared, [Sums][finish_slots][finish_channels]);
  const int lane = int(threadIdx.x) % finish_channels, slot = int(threadIdx.x) / finish_channels;
  const int c = int(blockIdx.x) * finish_channels + lane;
  float sums[Sums] = {};
  if (c < channels)
    for (int chunk = slot; chunk < chunks; chunk += finish_slots)
#pragma unroll
      for (int s = 0; s < Sums; ++s) sums[s] += partial[(std::int64_t(chunk) * Sums + s) * channels + c];
#pragma unroll
  for (int s = 0; s < Sums; ++s) shared[s][slot][lane] = sums[s];
  __syncthreads();
  if (slot == 0 && c < channels) {
#pragma unroll
    for (int s = 0; s < Sums; ++s)
#pragma unroll
      for (int k = 1; k < finish_slots; ++k) sums[s] += shared[s][k][lane];
    finish(c, sums);
  }
}

/// workspace: ColumnPlan(rows, channels).workspace(channels, Sums) floats.
template <int Sums, class Term, class Finish>
cudaError_t sum_columns(cudaStream_t stream, std::int64_t rows, int channels, const Term& term, float* workspace,
                        const Finish& finish) {
  const ColumnPlan plan(rows, channels);
  const dim3 grid(unsigned(plan.groups), unsigned(plan.chunks)), block(ColumnPlan::block);
  if (plan.chunks > 0) {
    const cudaError_t status =
        channels % 4 == 0 && term.aligned()
            ? launch<&sum_column_chunks<Sums, Term, true>>(grid, block, 0, stream, rows, channels, plan.lanes,
                                                           plan.rows_per_chunk, term, workspace)
            : launch<&sum_column_chunks<Sums, Term, false>>(grid, block, 0, stream, rows, channels, plan.lanes,
                                                            plan.rows_per_chunk, term, workspace);
    if (status != cudaSuccess) return status;
  }
  return launch<&sum_column_partials<Sums, Finish>>(dim3(unsigned(ceil_div(channels, finish_channels))),
                                                    dim3(finish_channels * finish_slots), 0, stream, channels,
                                                    plan.chunks, workspace, finish);
}

/// Terms and ends for plain column sums: y[c] (+)= sum over rows of x[row, c].
struct ColumnTerm {
  const float* x;
  bool aligned() const { return aligned16(x); }
  template <bool Vectors>
  struct Column {
    const float* x;
    int c, channels;
    STRATA_DEVICE_MEMBER Column(const ColumnTerm& term, int first, int count) : x(term.x), c(first), channels(count) {}
    STRATA_DEVICE_MEMBER void add(std::int64_t row, Numbers<4> (&sums)[1]) const {
      const Numbers<4> v = load_quad<Vectors>(x + row * channels, c, channels);
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[0].v[k] += v.v[k];
    }
  };
};
struct WriteColumn {
  float* y;
  bool accumulate;
  STRATA_DEVICE_MEMBER void operator()(int c, const float (&sums)[1]) const {
    y[c] = accumulate ? y[c] + sums[0] : sums[0];
  }
};

/// dslope of PReLU: the sum of dy * x where x is not above 0.
struct PreluSlopeTerm {
  const float *x, *dy;
  bool aligned() const { return aligned16(x, dy); }
  template <bool Vectors>
  struct Column {
    const float *x, *dy;
    int c, channels;
    STRATA_DEVICE_MEMBER Column(const PreluSlopeTerm& term, int first, int count)
        : x(term.x), dy(term.dy), c(first), channels(count) {}
    STRATA_DEVICE_MEMBER void add(std::int64_t row, Numbers<4> (&sums)[1]) const {
      const Numbers<4> v = load_quad<Vectors>(x + row * channels, c, channels);
      const Numbers<4> g = load_quad<Vectors>(dy + row * channels, c, channels);
#pragma unroll
      for (int k = 0; k < 4; ++k) sums[0].v[k] += v.v[k] > 0.0f ? 0.0f : g.v[k] * v.v[k];
    }
  };
};
/// The same over all elements, for one slope.
struct PreluSlopeAllTerm {
  const float *x, *dy;
  bool aligned() const { return aligned16(x, dy); }
  template <int W>
  STRATA_DEVICE_MEMBER Numbers<W> at(std::int64_t i) const {
    const Numbers<W> v = load<W>(x + i);
    Numbers<W> g = load<W>(dy + i);
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] = v.v[k] > 0.0f ? 0.0f : g.v[k] * v.v[k];
    return g;
  }
};
struct AddTotal {
  float* y;
  bool accumulate;
  STRATA_DEVICE_MEMBER void operator()(float total) const { *y = accumulate ? *y + total : total; }
};

}}}  // namespace strata::STRATA_ABI::cuda
