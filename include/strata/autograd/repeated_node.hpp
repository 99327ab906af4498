// An image of one channel as an operand beside images of several: its channel counts for each of theirs, as PyTorch
// broadcasts (N, 1, H, W).
//
//     auto gated = x * mask;                                         // Var<C> and Var<1>, on either side
//
// The repeated image is never in memory on the CPU, and its gradient is summed over the channels in the pass over
// memory that computes all others of the expression. An expression as the operand of one channel is computed first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression_nodes.hpp"
#include "strata/core/parallel.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

template <int C, class T>
struct RepeatedNode : ExpressionTag {
  using value_type = T;
  static constexpr int channels = C;
  static constexpr int lanes = simd::lanes<simd::Vector<T>>;

  Var<1, T> x;
  Shape shape;  ///< of the repeated image
  const T* values;
  Image<C, T> repeated;  ///< on an accelerator
  // On the way back: the sums for pixels, and for each task the part of its first pixel, where that begins in the task
  // before.
  T* sums = nullptr;
  Storage head_storage;
  T* heads = nullptr;

  explicit RepeatedNode(Var<1, T> variable) : x(std::move(variable)), shape{x.n(), C, x.h(), x.w()}, values(x.data()) {
    if (on_accelerator(x.device())) repeated = repeat_on_device();
  }
  Tape* tape() const { return x.tape(); }
  bool of_inference() const { return x.of_inference(); }
  const Shape* shape_or_null() const { return &shape; }
  MemoryPool* pool_or_null() const { return &x.pool(); }
  void bind(Tape&) {}
  void keep(KeptList& list, bool needed) const {
    if (needed) keep_for_backward(list, x);
  }
  template <class V>
  [[gnu::always_inline]] V eval(std::int64_t i) const {
    const std::int64_t pixel = pixel_of(i), channel = i - pixel * C;
    if constexpr (std::is_same_v<V, T>) {
      return values[pixel];
    } else {
      if (channel + lanes <= C) return V{} + values[pixel];
      V out{};
      for (int lane = 0; lane < lanes; ++lane) out[lane] = values[pixel + pixel_of(channel + lane)];
      return out;
    }
  }
  template <class V>
  [[gnu::always_inline]] void backward(std::int64_t i, V g) const {
    if (sums == nullptr) return;
    const std::int64_t task = i / expression_grain, first = task * expression_grain;
    // A pixel that begins before the task is another task's.
    const auto at = [&](std::int64_t pixel) -> T& { return pixel * C < first ? heads[task] : sums[pixel]; };
    const std::int64_t pixel = pixel_of(i), channel = i - pixel * C;
    if constexpr (std::is_same_v<V, T>) {
      at(pixel) += g;
    } else if (channel + lanes <= C) {
      T sum = g[0];
      for (int lane = 1; lane < lanes; ++lane) sum += g[lane];
      at(pixel) += sum;
    } else {
      for (int lane = 0; lane < lanes; ++lane) at(pixel + pixel_of(channel + lane)) += g[lane];
    }
  }

  // ---- the sums: see go_back_with_sums

  void begin_sums(Tape& tape, std::int64_t tasks) {
    const auto target = tape.target<T>(x.id());
    if (!target) return;
    sums = target.data;
    if (!target.accumulate) std::fill_n(sums, x.size(), T(0));
    head_storage = cpu_pool().take(std::size_t(tasks) * sizeof(T));
    heads = static_cast<T*>(head_storage.data());
    std::fill_n(heads, tasks, T(0));
  }
  void end_run(std::int64_t) const {}
  void end_sums(Tape&, std::int64_t tasks) {
    if (sums == nullptr) return;
    for (std::int64_t task = 1; task < tasks; ++task) sums[task * expression_grain / C] += heads[task];
    sums = nullptr;
  }

  // ---- on an accelerator

  void describe(DeviceExpression& e) const {
    if constexpr (!std::is_same_v<T, float>) {
      throw_not_float(x.device());
    } else if (x.id() >= 0) {
      e.push_leaf(repeated.data(), [node = *this](Tape& t, const float* g) { node.take_gradient_of_device(t, g); });
    } else {
      e.push_leaf(repeated.data(), -1);
    }
  }

 private:
  static std::int64_t pixel_of(std::int64_t element) { return std::int64_t(std::uint64_t(element) / std::uint64_t(C)); }
  /// The pixels C times one after another, and from there turned: two passes over memory, whatever C is.
  Image<C, T> repeat_on_device() const {
    Image<C, T> out(x.n(), x.h(), x.w(), x.pool());
    dispatch<T>(
        x.device(), [] {},
        [&](auto& gpu) {
          if constexpr (std::is_same_v<T, float>) {
            const Storage planes = x.pool().take(std::size_t(out.size()) * sizeof(T));
            float* const plane = static_cast<float*>(planes.data());
            gpu.copy_channels(C, int(x.size()), x.data(), 0, 0, plane, int(x.size()), 0, false);
            gpu.transpose(1, C, x.size(), plane, out.data(), false);
          }
        });
    return out;
  }
  void take_gradient_of_device(Tape& tape, const float* g) const {
    const auto target = tape.target<float>(x.id());
    if (!target) return;
    Accelerator& gpu = accelerator(x.device());
    const std::int64_t pixels = x.size();
    const Storage planes = x.pool().take(std::size_t(pixels * C) * sizeof(float));
    float* const plane = static_cast<float*>(planes.data());
    Tensor<float> sum(Shape{pixels}, x.pool());
    gpu.transpose(1, pixels, C, g, plane, false);
    gpu.global_avg_pool_forward(1, C, int(pixels), plane, sum.data());
    const TensorSpan all{pixels, sum.data()};
    gpu.scale({&all, 1}, double(C));
    gpu.copy_channels(1, int(pixels), sum.data(), int(pixels), 0, target.data, int(pixels), 0, target.accumulate);
  }
};

/// Where a forward is followed.
template <int C, class Symbol>
  requires requires { typename Symbol::is_symbol; }
struct RepeatedNode<C, Symbol> : ExpressionTag {
  using value_type = Symbol;
  static constexpr int channels = C;
  Var<1, Symbol> x;

  constexpr explicit RepeatedNode(Var<1, Symbol> variable) : x(std::move(variable)) {}
  constexpr Tape* tape() const { return nullptr; }
  constexpr bool of_inference() const { return false; }
  constexpr const Shape* shape_or_null() const { return nullptr; }
  constexpr MemoryPool* pool_or_null() const { return nullptr; }
};

template <class Node>
inline constexpr bool holds_repeated = false;
template <int C, class T>
inline constexpr bool holds_repeated<RepeatedNode<C, T>> = true;
template <class Function, class A>
inline constexpr bool holds_repeated<UnaryNode<Function, A>> = holds_repeated<A>;
template <class Function, class A, class B>
inline constexpr bool holds_repeated<BinaryNode<Function, A, B>> = holds_repeated<A> || holds_repeated<B>;

}}}  // namespace strata::STRATA_ABI::detail
