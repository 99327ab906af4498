// How much memory a network will take, told from its type before it runs:
//
//     st::training_bytes<Net>(128, 40, 40);       // a training step on 128 images of 40 x 40
//     st::inference_bytes<Net>(1, 480, 640);      // one image in an Infer pass
//
// What is counted is what the pool of host memory (tensor/storage.hpp) hands out at the same time at most: parameters with
// their gradients or the form that kernels read, activations, gradients of activations, and workspaces. Not counted are the
// batch itself and an optimiser's state. It is exact to a few percent for networks that are chains of the library's layers;
// a custom module counts as its members one after another, without what its own arithmetic keeps.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "strata/core/parallel.hpp"
#include "strata/cpu/conv2d.hpp"
#include "strata/nn/conv_transpose2d.hpp"
#include "strata/nn/fuse.hpp"
#include "strata/nn/trace.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI {

namespace detail {

/// Goes through a network as a pass does, and keeps account of what is alive.
template <bool Training>
class MemorySink {
 public:
  explicit MemorySink(std::int64_t batch) : batch_(batch) {}

  void enter(const auto&, const Extents& input) { held_.push_back({operations_, image(input)}); }
  void leave() { held_.pop_back(); }

  template <class M>
  void layer(const Extents& before, const Extents& after, const FusedStep& step) {
    parameters_ += MemoryPool::block_bytes(std::size_t(after.parameters - before.parameters) * sizeof(float));
    const bool fused = step.place > 0 && (Training || !rectified_norm<M>(step));
    if (fused) {
      if (is_batch_norm<M>) pending_ = image(after);
      return;
    }
    const std::size_t input = operations_ == 0 ? 0 : image(before), output = image(after);
    Workspace workspace;
    if constexpr (is_conv2d<M>) {
      const Conv2dProblem p = problem<M>(before);
      workspace = {cpu::conv2d_forward_workspace(p, Training), cpu::conv2d_weight_workspace(p), cpu::conv2d_input_workspace(p)};
      if (!cpu::conv2d_normalises_on_load(p)) {
        workspace.forward += pending_;
        workspace.weight_gradient += pending_;
      }
      if (!Training) packed_ += cpu::conv2d_packed_bytes(p);
    } else if constexpr (is_conv_transpose2d<M>) {  // forward is the gradient for the input of its adjoint, and the reverse
      const Conv2dProblem p = M::adjoint(batch_, before.h, before.w);
      const std::size_t kept = Training ? 0 : cpu::conv2d_transposed_packed_bytes(p);
      workspace = {cpu::conv2d_input_workspace(p) - kept, cpu::conv2d_weight_workspace(p), cpu::conv2d_forward_workspace(p, true)};
      packed_ += kept;
      activations_ += pending_;
    } else {
      activations_ += pending_;  // computed, since this layer asks for it
    }
    pending_ = 0;
    if (Training && is_batch_norm<M>) {
      pending_ = output;
      return;
    }
    activations_ += output;
    const std::size_t gone = is_conv_transpose2d<M> ? output : 0;  // its step back does not keep what it gave
    if (Training)
      peak_ = std::max({peak_, activations_ + workspace.forward, activations_ - gone + output + workspace.weight_gradient,
                        activations_ - gone + output + input + workspace.input_gradient});
    else
      peak_ = std::max(peak_, input + output + workspace.forward + held());
    ++operations_;
  }

  std::size_t bytes() const {
    const std::size_t end = Training ? activations_ + pending_ : 0;  // what the loss reads
    return std::max(peak_, end) + (Training ? 2 : 1) * parameters_ + packed_;
  }

 private:
  struct Held {
    int operations;
    std::size_t bytes;
  };
  struct Workspace {
    std::size_t forward = 0, weight_gradient = 0, input_gradient = 0;
  };

  std::size_t image(const Extents& e) const {
    return MemoryPool::block_bytes(std::size_t(batch_ * e.c * e.h * e.w) * sizeof(float));
  }
  /// A batch norm behind a ReLU is a step of its own in an Infer pass.
  template <class M>
  static constexpr bool rectified_norm(const FusedStep& step) {
    return is_batch_norm<M> && step.place == 2;
  }
  /// Inputs of the containers around this layer, each alive until the container has run. The network's own is the caller's.
  std::size_t held() const {
    std::size_t bytes = 0;
    int last = 0;
    for (const Held& h : held_)
      if (h.operations > last && h.operations < operations_) bytes += h.bytes, last = h.operations;
    return bytes;
  }
  template <class M>
  Conv2dProblem problem(const Extents& e) const {
    return {.n = batch_, .h = e.h, .w = e.w, .in = M::io::in, .out = M::io::out, .kernel = M::kernel, .stride = M::stride,
            .padding = M::padding, .dilation = M::dilation};
  }
  std::int64_t batch_;
  std::vector<Held> held_;
  int operations_ = 0;
  std::size_t parameters_ = 0, packed_ = 0, activations_ = 0, pending_ = 0, peak_ = 0;
};

template <bool Training, class Net>
std::int64_t network_bytes(std::int64_t n, std::int64_t h, std::int64_t w) {
  if (n < 1 || h < 1 || w < 1)
    throw ShapeError(concat("training_bytes, inference_bytes: got ", n, " images of ", h, " x ", w, "; wanted 1 or more"));
  Tracer<MemorySink<Training>> tracer(Extents{.c = input_channels<Net>(), .h = h, .w = w}, MemorySink<Training>(n));
  tracer.template run<Net>();
  return std::int64_t(tracer.sink().bytes());
}

}  // namespace detail

/// Bytes that a training step on n images of h x w takes at most.
template <class Net>
std::int64_t training_bytes(std::int64_t n, std::int64_t h, std::int64_t w) {
  return detail::network_bytes<true, Net>(n, h, w);
}

/// Bytes that an Infer pass on n images of h x w takes at most, the result included.
template <class Net>
std::int64_t inference_bytes(std::int64_t n, std::int64_t h, std::int64_t w) {
  return detail::network_bytes<false, Net>(n, h, w);
}

}  // namespace strata::inline STRATA_ABI
