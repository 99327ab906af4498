// The numbers of one step of an optimiser, as every backend takes them.
#pragma once

#include <cmath>
#include <cstdint>

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// torch.optim.SGD:
///     g += weight_decay * w;   v = first ? g : momentum * v + (1 - dampening) * g
///     w -= lr * (nesterov ? g + momentum * v : v)
struct SgdUpdate {
  double lr = 0, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
  bool first = false;  ///< no velocity yet: it is written without being read
};

/// torch.optim.Adam and AdamW (Kingma and Ba, 2015; Loshchilov and Hutter, 2019):
///     decoupled ? w *= 1 - lr * weight_decay : g += weight_decay * w
///     m = beta1 * m + (1 - beta1) * g;   v = beta2 * v + (1 - beta2) * g^2
///     w -= lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
struct AdamUpdate {
  double lr = 0, beta1 = 0, beta2 = 0, eps = 0, weight_decay = 0;
  bool decoupled = false;  ///< AdamW: the decay acts on the weights, not on the gradient
  std::int64_t step = 1;   ///< counted from 1
};

/// Adam's numbers as kernels of T take them, so that all compute
///     g += decay * w;   m = beta1 * m + fresh1 * g;   v = beta2 * v + fresh2 * g^2
///     w = keep * w - rate * m / (sqrt(v) * scale + eps)
template <class T>
struct AdamNumbers {
  T beta1, beta2, fresh1, fresh2, eps, keep, decay;

  explicit AdamNumbers(const AdamUpdate& u)
      : beta1(T(u.beta1)), beta2(T(u.beta2)), fresh1(T(1 - u.beta1)), fresh2(T(1 - u.beta2)), eps(T(u.eps)),
        keep(u.decoupled ? T(1 - u.lr * u.weight_decay) : T(1)), decay(u.decoupled ? T(0) : T(u.weight_decay)) {}
  /// What the count of steps makes of the learning rate, and of the root.
  static T rate(const AdamUpdate& u, std::int64_t step) { return T(u.lr / (1 - std::pow(u.beta1, double(step)))); }
  static T scale(const AdamUpdate& u, std::int64_t step) {
    return T(1 / std::sqrt(1 - std::pow(u.beta2, double(step))));
  }
};

/// torch.optim.RMSprop (Tieleman and Hinton, 2012):
///     g += weight_decay * w;   s = alpha * s + (1 - alpha) * g^2
///     centered: a = alpha * a + (1 - alpha) * g, and s - a^2 stands for s in the next line
///     d = g / (sqrt(s) + eps);   b = momentum * b + d
///     w -= lr * (momentum above 0 ? b : d)
struct RmspropUpdate {
  double lr = 0, alpha = 0, eps = 0, weight_decay = 0, momentum = 0;
};

}  // namespace strata::inline STRATA_ABI
