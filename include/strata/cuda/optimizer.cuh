// The updates of the optimisers for many tensors by one launch: a network has dozens of small parameters, and a launch
// for each would cost more than the work. The list of tensors is an argument of the kernel, which finds its tensor by
// its block.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

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

/// Calls update.at<W>(entry, i) for every element of this block.
template <class Update>
STRATA_DEVICE void update_block_of(const TensorList::Entry& entry, const Update& update) {
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

/// Grid: the sum of ceil(size / update_chunk).
template <class Update>
STRATA_GLOBAL void __launch_bounds__(update_block)
    update_tensors(const __grid_constant__ TensorList list, const __grid_constant__ Update update) {
  update_block_of(list.entry[entry_of_block(list)], update);
}

/// The same with numbers that lie on the device: the update's, and two corrections for each entry. So replays of
/// recorded work take others. Where *condition is not finite (nullptr: there is none) nothing changes.
template <class Update>
STRATA_GLOBAL void __launch_bounds__(update_block)
    update_tensors_by(const __grid_constant__ TensorList list, const Update* __restrict__ update,
                      const float* __restrict__ corrections, const float* __restrict__ condition) {
  if (condition != nullptr && !(fabsf(*condition) < INFINITY)) return;
  const int t = entry_of_block(list);
  TensorList::Entry entry = list.entry[t];
  entry.rate = corrections[2 * t], entry.scale = corrections[2 * t + 1];
  if constexpr (sizeof(Update) <= 5 * sizeof(float)) {  // more numbers than these would take registers from the rest
    const Update own = *update;
    update_block_of(entry, own);
  } else {
    update_block_of(entry, *update);
  }
}

/// The tensors in as few lists as fit: run(list, blocks, entries in lists before). `correct(entry, tensor)` fills what
/// an update needs of its own.
template <class Correct, class Run>
cudaError_t for_each_list(std::span<const TensorUpdate> tensors, const Correct& correct, Run&& run) {
  std::size_t next = 0;
  std::int64_t entries = 0;
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
    const cudaError_t status = run(std::as_const(list), blocks, entries);
    if (status != cudaSuccess) return status;
    entries += list.count;
  }
  return cudaSuccess;
}

template <class Update, class Correct>
cudaError_t update_all(cudaStream_t stream, std::span<const TensorUpdate> tensors, const Update& update,
                       const Correct& correct) {
  return for_each_list(tensors, correct, [&](const TensorList& list, std::int64_t blocks, std::int64_t) {
    return launch<&update_tensors<Update>>(dim3(unsigned(blocks)), dim3(update_block), 0, stream, list, update);
  });
}

// The numbers of an update on the device: the update, and from the next multiple of 16 bytes the corrections.
template <class Update>
inline constexpr std::size_t corrections_begin = (sizeof(Update) + 15) / 16 * 16;

/// As the device is to have them.
template <class Update, class Correct>
std::vector<unsigned char> update_numbers(std::span<const TensorUpdate> tensors, const Update& update,
                                          const Correct& correct) {
  std::vector<float> corrections;
  (void)for_each_list(tensors, correct, [&](const TensorList& list, std::int64_t, std::int64_t) {
    for (int t = 0; t < list.count; ++t) {
      corrections.push_back(list.entry[t].rate);
      corrections.push_back(list.entry[t].scale);
    }
    return cudaSuccess;
  });
  std::vector<unsigned char> bytes(corrections_begin<Update> + corrections.size() * sizeof(float));
  std::memcpy(bytes.data(), &update, sizeof update);
  if (!corrections.empty())
    std::memcpy(bytes.data() + corrections_begin<Update>, corrections.data(), corrections.size() * sizeof(float));
  return bytes;
}

/// update_all with the update_numbers at `numbers`, on the device.
template <class Update>
cudaError_t update_all_by(cudaStream_t stream, std::span<const TensorUpdate> tensors, const void* numbers,
                          const float* condition) {
  const auto* const bytes = static_cast<const unsigned char*>(numbers);
  const auto none = [](TensorList::Entry&, const TensorUpdate&) {};
  return for_each_list(tensors, none, [&](const TensorList& list, std::int64_t blocks, std::int64_t before) {
    return launch<&update_tensors_by<Update>>(
        dim3(unsigned(blocks)), dim3(update_block), 0, stream, list, reinterpret_cast<const Update*>(bytes),
        reinterpret_cast<const float*>(bytes + corrections_begin<Update>) + 2 * before, condition);
  });
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

// Each calls run(update, correct), as update_all takes them.
template <class Run>
void with_sgd(const SgdUpdate& u, Run&& run) {
  run(SgdStep{float(u.lr), float(u.momentum), float(1 - u.dampening), float(u.weight_decay), u.nesterov},
      [](TensorList::Entry&, const TensorUpdate&) {});
}
template <class Run>
void with_adam(const AdamUpdate& u, Run&& run) {
  run(AdamStep{AdamNumbers<float>(u)}, [&u](TensorList::Entry& entry, const TensorUpdate& tensor) {
    entry.rate = AdamStep::rate(u, tensor.step);
    entry.scale = AdamStep::scale(u, tensor.step);
  });
}
template <class Run>
void with_rmsprop(const RmspropUpdate& u, Run&& run) {
  run(RmspropStep{float(u.lr), float(u.alpha), float(1 - u.alpha), float(u.eps), float(u.weight_decay),
                  float(u.momentum)},
      [](TensorList::Entry&, const TensorUpdate&) {});
}

/// *step = the factor that limits the norm, whose square is at `squares`, to max_norm: clip_grad_norm_'s.
STRATA_GLOBAL void limiting_factor(const float* __restrict__ squares, double max_norm, ScaleStep* __restrict__ step) {
  const double factor = max_norm / (sqrt(double(*squares)) + 1e-6);
  step->factor = factor < 1 ? float(factor) : 1.0f;
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
