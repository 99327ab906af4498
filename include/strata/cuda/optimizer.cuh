// The updates of the optimisers for many tensors by one launch: a network has dozens of small parameters, and a launch
// for each would cost more than the work. The list of tensors is an argument of the kernel, which finds its tensor by
// its block.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "strata/cuda/numbers.cuh"
#include "strata/cuda/reduce.cuh"
#include "strata/kernels/accelerator.hpp"
#include "strata/math/optimizer_update.hpp"

namespace strata { inline namespace STRATA_ABI { namespace cuda {

inline constexpr int update_block = 256, update_chunk = 4 * update_block;  // elements of a block
inline constexpr int tensors_per_launch = 60;

/// A part of the list; kernels take at most 4 KiB of arguments.
struct TensorList {
  struct Entry {
    std::int64_t size;
    float* value;
    const float* gradient;
    float *state1, *state2, *state3;
    unsigned first_block;
    float rate, scale;  ///< Adam's corrections
    bool first, aligned;
  };
  Entry entry[tensors_per_launch];
  int count;
};
static_assert(sizeof(TensorList) <= 4000, "a kernel takes at most 4 KiB of arguments");

/// The last entry that begins at or before this block.
STRATA_DEVICE int entry_of_block(const TensorList& list) {
  int t = 0;
  for (int step = 32; step > 0; step /= 2)
    if (t + step < list.count && list.entry[t + step].first_block <= blockIdx.x) t += step;
  return t;
}
static_assert(tensors_per_launch <= 64);

/// Calls update.at<W>(entry, i) for every element. Grid: the sum of ceil(size / update_chunk).
template <class Update>
STRATA_GLOBAL void __launch_bounds__(update_block)
    update_tensors(const __grid_constant__ TensorList list, const __grid_constant__ Update update) {
  const TensorList::Entry& entry = list.entry[entry_of_block(list)];
  const std::int64_t block = std::int64_t(blockIdx.x - entry.first_block) * update_chunk;
  if (entry.aligned) {
    const std::int64_t first = block + 4 * std::int64_t(threadIdx.x);
    if (first + 4 <= entry.size)
      update.template at<4>(entry, first);
    else
      for (std::int64_t i = first; i < entry.size; ++i) update.template at<1>(entry, i);
  } else {
    for (int k = 0; k < 4; ++k) {
      const std::int64_t i = block + k * update_block + std::int64_t(threadIdx.x);
      if (i < entry.size) update.template at<1>(entry, i);
    }
  }
}

/// The tensors in as few launches as fit. `correct(entry, tensor)` fills what an update needs of its own.
template <class Update, class Correct>
cudaError_t update_all(cudaStream_t stream, std::span<const TensorUpdate> tensors, const Update& update,
                       const Correct& correct) {
  std::size_t next = 0;
  while (next < tensors.size()) {
    TensorList list{};
    std::int64_t blocks = 0;
    for (; next < tensors.size() && list.count < tensors_per_launch; ++next) {
      const TensorUpdate& tensor = tensors[next];
      if (tensor.size <= 0) continue;
      TensorList::Entry& entry = list.entry[list.count++];
      entry = {tensor.size,
               tensor.value,
               tensor.gradient,
               tensor.state1,
               tensor.state2,
               tensor.state3,
               unsigned(blocks),
               0.0f,
               0.0f,
               tensor.first,
               aligned16(tensor.value, tensor.gradient, tensor.state1, tensor.state2, tensor.state3)};
      correct(entry, tensor);
      blocks += ceil_div(tensor.size, update_chunk);
    }
    if (list.count == 0) break;
    const cudaError_t status =
        launch<&update_tensors<Update>>(dim3(unsigned(blocks)), dim3(update_block), 0, stream, list, update);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

/// torch.optim.SGD (math/optimizer_update.hpp).
struct SgdStep {
  float lr, momentum, fresh, decay;
  bool nesterov;
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i), g = load<W>(entry.gradient + i);
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] += decay * w.v[k];
    if (entry.state1 != nullptr) {
      Numbers<W> v = g;
      if (!entry.first) {
        v = load<W>(entry.state1 + i);
#pragma unroll
        for (int k = 0; k < W; ++k) v.v[k] = momentum * v.v[k] + fresh * g.v[k];
      }
      store<W>(entry.state1 + i, v);
#pragma unroll
      for (int k = 0; k < W; ++k) g.v[k] = nesterov ? g.v[k] + momentum * v.v[k] : v.v[k];
    }
#pragma unroll
    for (int k = 0; k < W; ++k) w.v[k] -= lr * g.v[k];
    store<W>(entry.value + i, w);
  }
};

/// torch.optim.Adam and AdamW.
struct AdamStep : AdamNumbers<float> {
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i), m = load<W>(entry.state1 + i), v = load<W>(entry.state2 + i);
    const Numbers<W> gradient = load<W>(entry.gradient + i);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      const float g = gradient.v[k] + decay * w.v[k];
      m.v[k] = beta1 * m.v[k] + fresh1 * g;
      v.v[k] = beta2 * v.v[k] + fresh2 * (g * g);
      w.v[k] = keep * w.v[k] - __fdividef(entry.rate * m.v[k], sqrtf(v.v[k]) * entry.scale + eps);
    }
    store<W>(entry.state1 + i, m);
    store<W>(entry.state2 + i, v);
    store<W>(entry.value + i, w);
  }
};

/// torch.optim.RMSprop. state1: the squares' average; state2: the gradients', or null; state3: the momentum, or null.
struct RmspropStep {
  float lr, alpha, fresh, eps, decay, momentum;
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i), g = load<W>(entry.gradient + i), s = load<W>(entry.state1 + i);
#pragma unroll
    for (int k = 0; k < W; ++k) {
      g.v[k] += decay * w.v[k];
      s.v[k] = alpha * s.v[k] + fresh * (g.v[k] * g.v[k]);
    }
    store<W>(entry.state1 + i, s);
    if (entry.state2 != nullptr) {
      Numbers<W> a = load<W>(entry.state2 + i);
#pragma unroll
      for (int k = 0; k < W; ++k) {
        a.v[k] += fresh * (g.v[k] - a.v[k]);
        s.v[k] -= a.v[k] * a.v[k];
        s.v[k] = s.v[k] < 0.0f ? 0.0f : s.v[k];  // rounding made it so
      }
      store<W>(entry.state2 + i, a);
    }
#pragma unroll
    for (int k = 0; k < W; ++k) g.v[k] /= sqrtf(s.v[k]) + eps;
    if (entry.state3 != nullptr) {
      const Numbers<W> b = load<W>(entry.state3 + i);
#pragma unroll
      for (int k = 0; k < W; ++k) g.v[k] += momentum * b.v[k];
      store<W>(entry.state3 + i, g);
    }
#pragma unroll
    for (int k = 0; k < W; ++k) w.v[k] -= lr * g.v[k];
    store<W>(entry.value + i, w);
  }
};

/// value = keep * value + fresh * gradient.
struct AverageStep {
  float keep, fresh;
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i);
    const Numbers<W> x = load<W>(entry.gradient + i);
#pragma unroll
    for (int k = 0; k < W; ++k) w.v[k] = keep * w.v[k] + fresh * x.v[k];
    store<W>(entry.value + i, w);
  }
};

/// value *= factor.
struct ScaleStep {
  float factor;
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i);
#pragma unroll
    for (int k = 0; k < W; ++k) w.v[k] *= factor;
    store<W>(entry.value + i, w);
  }
};

/// value limited to [-limit, limit]; NaN stays NaN.
struct ClampStep {
  float limit;
  template <int W>
  STRATA_DEVICE_MEMBER void at(const TensorList::Entry& entry, std::int64_t i) const {
    Numbers<W> w = load<W>(entry.value + i);
#pragma unroll
    for (int k = 0; k < W; ++k) w.v[k] = w.v[k] > limit ? limit : w.v[k] < -limit ? -limit : w.v[k];
    store<W>(entry.value + i, w);
  }
};

inline cudaError_t sgd_update(cudaStream_t stream, std::span<const TensorUpdate> tensors, const SgdUpdate& u) {
  return update_all(stream, tensors,
                    SgdStep{float(u.lr), float(u.momentum), float(1 - u.dampening), float(u.weight_decay), u.nesterov},
                    [](TensorList::Entry&, const TensorUpdate&) {});
}
inline cudaError_t adam_update(cudaStream_t stream, std::span<const TensorUpdate> tensors, const AdamUpdate& u) {
  const AdamStep step{AdamNumbers<float>(u)};
  return update_all(stream, tensors, step, [&](TensorList::Entry& entry, const TensorUpdate& tensor) {
    entry.rate = step.rate(u, tensor.step);
    entry.scale = step.scale(u, tensor.step);
  });
}
inline cudaError_t rmsprop_update(cudaStream_t stream, std::span<const TensorUpdate> tensors, const RmspropUpdate& u) {
  return update_all(stream, tensors,
                    RmspropStep{float(u.lr), float(u.alpha), float(1 - u.alpha), float(u.eps), float(u.weight_decay),
                                float(u.momentum)},
                    [](TensorList::Entry&, const TensorUpdate&) {});
}

/// partial[block] = the sum of squares of a block's elements. Grid: the sum of ceil(size / update_chunk).
STRATA_GLOBAL void __launch_bounds__(update_block)
    square_tensors(const __grid_constant__ TensorList list, float* __restrict__ partial) {
  STRATA_SHARED(float, scratch, [update_block / 32]);
  const TensorList::Entry& entry = list.entry[entry_of_block(list)];
  const std::int64_t block = std::int64_t(blockIdx.x - entry.first_block) * update_chunk;
  float total = 0;
  for (int k = 0; k < 4; ++k) {
    const std::int64_t i = block + k * update_block + std::int64_t(threadIdx.x);
    if (i < entry.size) total += entry.value[i] * entry.value[i];
  }
  total = block_sum<update_block>(total, scratch);
  if (threadIdx.x == 0) partial[blockIdx.x] = total;
}

/// Blocks of partial sums that sum_of_squares writes, so floats of its workspace.
inline std::int64_t square_blocks(std::span<const TensorUpdate> tensors) {
  std::int64_t blocks = 0;
  for (const TensorUpdate& tensor : tensors) blocks += ceil_div(tensor.size, update_chunk);
  return blocks;
}

/// *result = the sum of squares of all values. workspace: square_blocks + SumPlan(square_blocks).workspace() floats.
inline cudaError_t sum_of_squares(cudaStream_t stream, std::span<const TensorUpdate> tensors, float* workspace,
                                  float* result) {
  std::size_t next = 0;
  std::int64_t done = 0;
  while (next < tensors.size()) {
    TensorList list{};
    std::int64_t blocks = 0;
    for (; next < tensors.size() && list.count < tensors_per_launch; ++next) {
      if (tensors[next].size <= 0) continue;
      TensorList::Entry& entry = list.entry[list.count++];
      entry.size = tensors[next].size, entry.value = tensors[next].value, entry.first_block = unsigned(blocks);
      blocks += ceil_div(entry.size, update_chunk);
    }
    if (list.count == 0) break;
    const cudaError_t status =
        launch<&square_tensors>(dim3(unsigned(blocks)), dim3(update_block), 0, stream, list, workspace + done);
    if (status != cudaSuccess) return status;
    done += blocks;
  }
  return sum_all(stream, done, ValueTerm{workspace}, workspace + done, WriteTotal{1.0f, result});
}

}}}  // namespace strata::STRATA_ABI::cuda
