// How weights start.
//
//     st::initialize(net, seed);                                            // kaiming normal
//     st::initialize(net, seed, st::XavierUniform{.gain = 1.0f});
//
// Every tensor of two or more extents (convolution and linear weights) is drawn, unless it was constructed with a
// number to start with, as a learned factor is: st::Parameter beta{st::Shape{1, C, 1, 1}, 0.0f}. It and all others,
// biases and batch norm's scales, get that number. The draw depends on the seed and the tensor's place in the network's
// list, on nothing else.
//
// A layer that nobody initialises has drawn its weights already, kaiming normal, when it was constructed: the n-th
// layer that a thread constructs draws the n-th set, so that no two are alike, and a program that is run again draws
// the same.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "strata/autograd/visit.hpp"
#include "strata/core/random.hpp"
#include "strata/core/rounded.hpp"

namespace strata { inline namespace STRATA_ABI {

/// Inputs that one output depends on, and outputs that depend on one input.
struct Fans {
  std::int64_t in, out;
};
inline Fans fans(const Shape& shape) {
  const std::int64_t taps = shape.h() * shape.w();
  return {shape.c() * taps, shape.n() * taps};
}

namespace detail {

// Calls f(t) with the parameter's tensor, be it float or double.
template <class F>
void with_value(Parameter& parameter, F&& f) {
  std::visit([&](auto& t) {
    if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(t)>, Tensor<std::int64_t>>) f(t);
  }, parameter.any_value());
}

inline void fill(Parameter& parameter, auto&& draw) {
  with_value(parameter, [&](auto& t) {
    for (auto& x : t.span()) x = static_cast<std::remove_reference_t<decltype(x)>>(draw());
  });
}

}  // namespace detail

/// Normal with variance gain^2 / fan_in (He et al., 2015); gain sqrt(2) suits ReLU.
struct KaimingNormal {
  float gain = 1.41421356f;
  void operator()(Parameter& weight, Rng rng) const {
    const float stddev = gain / std::sqrt(float(fans(weight.shape()).in));
    detail::fill(weight, [&] { return stddev * rng.normal(); });
  }
};

/// Uniform with variance gain^2 / fan_in. gain = sqrt(1/3) is PyTorch's default for convolution and linear layers.
struct KaimingUniform {
  float gain = 1.41421356f;
  void operator()(Parameter& weight, Rng rng) const {
    const float bound = gain * std::sqrt(3.0f / float(fans(weight.shape()).in));
    detail::fill(weight, [&] { return rng.uniform(-bound, bound); });
  }
};

/// Normal with variance 2 gain^2 / (fan_in + fan_out) (Glorot and Bengio, 2010).
struct XavierNormal {
  float gain = 1;
  void operator()(Parameter& weight, Rng rng) const {
    const Fans f = fans(weight.shape());
    const float stddev = gain * std::sqrt(2.0f / float(f.in + f.out));
    detail::fill(weight, [&] { return stddev * rng.normal(); });
  }
};

/// Uniform with variance 2 gain^2 / (fan_in + fan_out).
struct XavierUniform {
  float gain = 1;
  void operator()(Parameter& weight, Rng rng) const {
    const Fans f = fans(weight.shape());
    const float bound = gain * std::sqrt(6.0f / float(f.in + f.out));
    detail::fill(weight, [&] { return rng.uniform(-bound, bound); });
  }
};

/// Normal with this mean and standard deviation, as torch.nn.init.normal_.
struct Normal {
  float mean = 0, std = 1;
  void operator()(Parameter& weight, Rng rng) const {
    detail::fill(weight, [&] { return mean + detail::rounded(std * rng.normal()); });
  }
};

/// Uniform from low to high, as torch.nn.init.uniform_.
struct Uniform {
  float low = 0, high = 1;
  void operator()(Parameter& weight, Rng rng) const {
    detail::fill(weight, [&] { return rng.uniform(low, high); });
  }
};

/// The same number everywhere.
struct Constant {
  float value = 0;
  void operator()(Parameter& weight, Rng) const {
    detail::fill(weight, [&] { return value; });
  }
};

/// Rows (outputs x inputs) that are orthonormal times gain, or columns where there are more rows than columns (Saxe et
/// al., 2013): a normal matrix, orthogonalised by Gram-Schmidt in double, twice.
struct Orthogonal {
  float gain = 1;
  void operator()(Parameter& weight, Rng rng) const {
    const std::int64_t rows = weight.shape().n(), cols = weight.size() / rows;
    const bool tall = rows > cols;
    const std::int64_t count = std::min(rows, cols), length = std::max(rows, cols);
    std::vector<double> q(std::size_t(count * length));
    for (double& x : q) x = double(rng.normal());
    const auto row = [&](std::int64_t i) { return q.data() + i * length; };
    for (std::int64_t i = 0; i < count; ++i)
      for (int round = 0; round < 2; ++round) {
        for (std::int64_t j = 0; j < i; ++j) {
          double dot = 0;
          for (std::int64_t k = 0; k < length; ++k) dot += detail::rounded(row(i)[k] * row(j)[k]);
          for (std::int64_t k = 0; k < length; ++k) row(i)[k] -= detail::rounded(dot * row(j)[k]);
        }
        double norm = 0;
        for (std::int64_t k = 0; k < length; ++k) norm += detail::rounded(row(i)[k] * row(i)[k]);
        for (std::int64_t k = 0; k < length; ++k) row(i)[k] /= std::sqrt(norm);
      }
    std::int64_t next = 0;
    detail::fill(weight, [&] {
      const std::int64_t r = next / cols, c = next++ % cols;
      return double(gain) * (tall ? row(c)[r] : row(r)[c]);
    });
  }
};

namespace detail {

/// Layers that this thread has constructed so far.
inline std::uint32_t& default_weights_drawn() {
  thread_local std::uint32_t layers = 0;
  return layers;
}
inline std::uint32_t next_default_weights() { return default_weights_drawn()++; }

/// Layers that are constructed while it lives do not count.
class DefaultWeightsUntouched {
 public:
  constexpr DefaultWeightsUntouched() {
    if (!std::is_constant_evaluated()) drawn_ = default_weights_drawn();
  }
  DefaultWeightsUntouched(const DefaultWeightsUntouched&) = delete;
  constexpr ~DefaultWeightsUntouched() {
    if (!std::is_constant_evaluated()) default_weights_drawn() = drawn_;
  }

 private:
  std::uint32_t drawn_ = 0;
};

/// The weights that a layer is constructed with.
constexpr void draw_default_weights(Parameter& weight) {
  // no epoch's stream
  if (!std::is_constant_evaluated()) KaimingNormal{}(weight, Rng(0, 0xFFFFFFFEu, next_default_weights()));
}

}  // namespace detail

/// Draws all weights of a network anew. `init` is one of the above or any callable (Parameter&, Rng).
template <class M, class Init = KaimingNormal>
void initialize(M& module, std::uint64_t seed, const Init& init = {}) {
  std::uint32_t index = 0;
  for_each_tensor(module, [&](const std::string&, auto& leaf) {
    if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Parameter>) {
      const Device device = leaf.device();
      leaf.to(Device::cpu());  // initialisers write on the host
      leaf.reset();
      leaf.zero_grad();
      // no epoch's stream
      if (leaf.shape().rank() >= 2 && !leaf.starts_at_a_number()) init(leaf, Rng(seed, 0xFFFFFFFFu, index));
      leaf.to(device);
      ++index;
    }
  });
}

}}  // namespace strata::STRATA_ABI
