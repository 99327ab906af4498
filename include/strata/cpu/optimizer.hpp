// The update kernels of the optimisers: one pass over memory per parameter, over all cores, the same bits for any
// number of threads. They take tensors as flat arrays: the memory order does not matter as long as all arrays share it.
//
//     cpu::sgd_update(count, weights, gradients, velocity, {.lr = 0.1, .momentum = 0.9, .first = true});
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/parallel.hpp"
#include "strata/core/simd.hpp"
#include "strata/math/functions.hpp"
#include "strata/math/optimizer_update.hpp"
#include "strata/tensor/storage.hpp"

namespace strata::inline STRATA_ABI::cpu {

namespace detail {

inline constexpr std::int64_t update_grain = 1 << 14;  // elements of one task; fixes the order of sums

/// Calls f.template operator()<V>(i) for the elements [0, count) on all cores: whole vectors, then single numbers at
/// the end of each task.
template <class T, class F>
void update_elements(std::int64_t count, F&& f) {
  using V = simd::Vector<T>;
  parallel_ranges(count, update_grain, [&](std::int64_t i, std::int64_t end) {
    for (; i + simd::lanes<V> <= end; i += simd::lanes<V>) f.template operator()<V>(i);
    for (; i < end; ++i) f.template operator()<T>(i);
  });
}

}  // namespace detail

using strata::SgdUpdate, strata::AdamUpdate, strata::RmspropUpdate;

/// torch.optim.SGD:
///     g += weight_decay * w;   v = first ? g : momentum * v + (1 - dampening) * g
///     w -= lr * (nesterov ? g + momentum * v : v)
/// `velocity` may be null when momentum is 0; then w -= lr * g.
template <class T>
void sgd_update(std::int64_t count, T* w, const T* g, T* velocity, const SgdUpdate& update) {
  const T lr = T(update.lr), decay = T(update.weight_decay), momentum = T(update.momentum);
  const T fresh = T(1 - update.dampening);
  const bool nesterov = update.nesterov, first = update.first;
  detail::update_elements<T>(count, [=]<class V>(std::int64_t i) {
    const V x = simd::load<V>(w + i);
    const V gradient = simd::load<V>(g + i) + decay * x;
    V change = gradient;
    if (velocity != nullptr) {
      const V v = first ? gradient : momentum * simd::load<V>(velocity + i) + fresh * gradient;
      simd::store<V>(velocity + i, v);
      change = nesterov ? gradient + momentum * v : v;
    }
    simd::store<V>(w + i, x - lr * change);
  });
}

/// torch.optim.Adam and AdamW: AdamNumbers has the formula. The moments m and v start as zeros.
template <class T>
void adam_update(std::int64_t count, T* w, const T* g, T* m, T* v, const AdamUpdate& update) {
  const AdamNumbers<T> adam(update);
  const T rate = adam.rate(update, update.step), scale = adam.scale(update, update.step);
  detail::update_elements<T>(count, [=]<class V>(std::int64_t i) {
    const V x = simd::load<V>(w + i);
    const V gradient = simd::load<V>(g + i) + adam.decay * x;
    const V first = adam.beta1 * simd::load<V>(m + i) + adam.fresh1 * gradient;
    const V second = adam.beta2 * simd::load<V>(v + i) + adam.fresh2 * (gradient * gradient);
    simd::store<V>(m + i, first);
    simd::store<V>(v + i, second);
    simd::store<V>(w + i, adam.keep * x - rate * first / (math::square_root(second) * scale + adam.eps));
  });
}

/// torch.optim.RMSprop (Tieleman and Hinton, 2012):
///     g += weight_decay * w;   s = alpha * s + (1 - alpha) * g^2
///     centered: a = alpha * a + (1 - alpha) * g, and s - a^2 stands for s in the next line
///     d = g / (sqrt(s) + eps);   b = momentum * b + d
///     w -= lr * (momentum above 0 ? b : d)
/// s, a and b start as zeros. `a` is null unless centered, `b` where momentum is 0. A variance s - a^2 that rounding made
/// negative counts as 0.
template <class T>
void rmsprop_update(std::int64_t count, T* w, const T* g, T* s, T* a, T* b, const RmspropUpdate& update) {
  const T lr = T(update.lr), decay = T(update.weight_decay), momentum = T(update.momentum), eps = T(update.eps);
  const T alpha = T(update.alpha), fresh = T(1 - update.alpha);
  detail::update_elements<T>(count, [=]<class V>(std::int64_t i) {
    const V x = simd::load<V>(w + i);
    const V gradient = simd::load<V>(g + i) + decay * x;
    const V squares = alpha * simd::load<V>(s + i) + fresh * (gradient * gradient);
    simd::store<V>(s + i, squares);
    V variance = squares;
    if (a != nullptr) {
      // As a step towards the gradient: alpha and fresh are rounded and need not add up to 1, which s - a^2 would show.
      const V before = simd::load<V>(a + i), average = before + fresh * (gradient - before);
      simd::store<V>(a + i, average);
      variance = squares - average * average;
      variance = math::select(variance < V{}, V{}, variance);
    }
    V change = gradient / (math::square_root(variance) + eps);
    if (b != nullptr) {
      change = momentum * simd::load<V>(b + i) + change;
      simd::store<V>(b + i, change);
    }
    simd::store<V>(w + i, x - lr * change);
  });
}

/// average = decay * average + (1 - decay) * x.
template <class T>
void average_update(std::int64_t count, T* average, const T* x, double decay) {
  const T keep = T(decay), fresh = T(1 - decay);
  detail::update_elements<T>(count, [=]<class V>(std::int64_t i) {
    simd::store<V>(average + i, keep * simd::load<V>(average + i) + fresh * simd::load<V>(x + i));
  });
}

/// x *= factor.
template <class T>
void scale(std::int64_t count, T* x, double factor) {
  detail::update_elements<T>(count, [x, factor = T(factor)]<class V>(std::int64_t i) {
    simd::store<V>(x + i, factor * simd::load<V>(x + i));
  });
}

/// Every element limited to [-limit, limit]; NaN stays NaN.
template <class T>
void clamp(std::int64_t count, T* x, double limit) {
  detail::update_elements<T>(count, [x, limit = T(limit)]<class V>(std::int64_t i) {
    const V value = simd::load<V>(x + i), high = V{} + limit, low = V{} - limit;
    const V below = value > high ? high : value;
    simd::store<V>(x + i, below < low ? low : below);
  });
}

/// The sum of squares, in double and in an order that count alone fixes.
template <class T>
double sum_of_squares(std::int64_t count, const T* x) {
  const std::int64_t tasks = (count + detail::update_grain - 1) / detail::update_grain;
  Scratch<double> partial{std::size_t(tasks)};
  parallel_for(tasks, [&](std::int64_t task) {
    constexpr int lanes = 32;  // the same on every processor
    typedef T Part __attribute__((vector_size(8 * sizeof(T))));
    typedef double Sum __attribute__((vector_size(8 * sizeof(double))));
    Sum sums[lanes / 8] = {};
    std::int64_t i = task * detail::update_grain;
    const std::int64_t end = std::min(count, i + detail::update_grain);
    const auto add = [&](const T* from) STRATA_INLINED {
      simd::unroll<lanes / 8>([&](auto part) STRATA_INLINED {
        Part values;
        __builtin_memcpy(&values, from + part * 8, sizeof(Part));
        const Sum wide = __builtin_convertvector(values, Sum);
        sums[part] += wide * wide;
      });
    };
    for (; i + lanes <= end; i += lanes) add(x + i);
    T rest[lanes] = {};
    std::copy(x + i, x + end, rest);
    add(rest);
    double total = 0;
    for (const Sum& part : sums)
      for (int lane = 0; lane < 8; ++lane) total += part[lane];
    partial[std::size_t(task)] = total;
  });
  double total = 0;
  for (std::int64_t task = 0; task < tasks; ++task) total += partial[std::size_t(task)];
  return total;
}

}  // namespace strata::inline STRATA_ABI::cpu
