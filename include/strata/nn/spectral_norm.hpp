// Layers whose weights are made of others in each pass, as torch.nn.utils.spectral_norm and weight_norm, with their
// names in files. They wrap a convolution (transposed ones too) or Linear:
//
//     st::SpectralNorm<st::Conv2d<64, 128, 4, down>>        // weight_orig, weight_u, weight_v, and the bias
//     st::WeightNorm<st::Conv2d<64, 64>>                    // weight_g, weight_v, and the bias
//
// On the CPU. st::fold(net) gives the plain layers, with the weights as they are then; ONNX files hold the same. Files
// of torch.nn.utils.parametrizations, whose names are others, are loaded into them too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "strata/nn/checkpoint.hpp"
#include "strata/nn/following.hpp"
#include "strata/nn/init.hpp"
#include "strata/nn/module.hpp"
#include "strata/tensor/pool_allocator.hpp"

namespace strata { inline namespace STRATA_ABI {

namespace detail {

/// A weight as a matrix with PyTorch's order: a row for each index along extent `Dim`, columns for all others.
template <int Dim>
struct WeightMatrix {
  Shape shape;

  std::int64_t rows() const { return shape[Dim]; }
  std::int64_t cols() const { return shape.size() / rows(); }
  /// Calls f(row, column, place in memory).
  template <class F>
  void each(F&& f) const {
    if (shape.rank() != 4) {  // rows of Linear
      for (std::int64_t i = 0; i < shape.size(); ++i) f(i / cols(), i % cols(), i);
      return;
    }
    const std::int64_t channels = shape[1], pixels = shape[2] * shape[3];
    std::int64_t place = 0;
    for (std::int64_t n = 0; n < shape[0]; ++n)
      for (std::int64_t pixel = 0; pixel < pixels; ++pixel)
        for (std::int64_t c = 0; c < channels; ++c, ++place)
          if constexpr (Dim == 0)
            f(n, c * pixels + pixel, place);
          else
            f(c, n * pixels + pixel, place);
  }
};

inline double number_at(const AnyTensor& tensor, std::int64_t i) {
  return std::visit([i](const auto& t) { return double(t.data()[i]); }, tensor);
}
inline void set_number(AnyTensor& tensor, std::int64_t i, double value) {
  std::visit([i, value]<class T>(Tensor<T>& t) { t.data()[i] = static_cast<T>(value); }, tensor);
}

/// What SpectralNorm and WeightNorm share. Self has
///   source()                the parameter of the weights' shape and type
///   state()                 what they are made of besides parameters, as a Tensor<double>
///   next_state(pass)        the same after what a training pass does first
///   make<T>(state, shape)   the weights
///   back<T>(state, dw)      adds to its parameters' gradients, from that for the weights
///   learns()                whether one of them wants a gradient
template <class Self, class M, bool FollowsTransposed>
class MadeOfOthers : public Layer<Self> {
 public:
  using io = typename M::io;
  static constexpr bool has_state = true, is_leaf_layer = true;
  static constexpr void trace(auto& t) { M::trace(t); }
  static LayerMemory memory(const Shape& x) { return M::memory(x); }

  M body;  ///< has the bias; its weight is not used
  /// The weight's extent whose indices are the rows of a matrix: a transposed convolution's outputs are its second.
  static constexpr int dim = FollowsTransposed && requires { M::output_padding; } ? 1 : 0;

  /// The layer with the weights as they are.
  M plain() const {
    const Self& self = static_cast<const Self&>(*this);
    M layer(body);
    std::visit(
        [&]<class T>(const Tensor<T>& like) {
          if constexpr (std::is_floating_point_v<T>)
            layer.weight.any_value() = self.template make<T>(self.state(), like.shape());
        },
        self.source().any_value());
    return layer;
  }

  /// For io/onnx_export.hpp: the plain layer, with the weights as they are and the names that it has by itself.
  static auto onnx(auto& self, const auto& x) {
    const M layer = self.plain();
    std::vector<const Parameter*> listed;
    const auto each_rest = [](const M& of, auto&& f) {
      M::visit(of, [&](const auto& name, const Parameter& leaf) {
        if (std::string_view(name) != "weight") f(leaf);
      });
    };
    each_rest(self.body, [&](const Parameter& leaf) { listed.push_back(&leaf); });
    x.name_as(layer.weight, self.source(), "weight");
    std::size_t next = 0;
    each_rest(layer, [&](const Parameter& leaf) { x.name_as(leaf, *listed[next++]); });
    const auto y = M::onnx(layer, x);
    M::visit(layer, [&](const auto&, const Parameter& leaf) { x.forget(leaf); });
    return y;
  }

  template <Pass P, int C, class T>
  static auto forward(auto& self, P& pass, Var<C, T> x) {
    if (on_accelerator(x.device()))
      throw DeviceError(concat(Self::name(), ": runs on the CPU only, and the images are on ", x.device().str(),
                               ": train there, or fold the network"));
    if constexpr (P::training) {
      return train(self, pass, x);
    } else {
      M layer(self.body);
      layer.weight.any_value() = self.template make<T>(self.state(), self.source().shape());
      return call(std::as_const(layer), pass, x);
    }
  }

 protected:
  /// Lists what the body has besides its weight.
  static constexpr void visit_rest(auto& self, auto&& f) {
    std::remove_const_t<M>::visit(self.body, [&](const auto& name, auto& leaf) {
      if (std::string_view(name) != "weight") f(name, leaf);
    });
  }

 private:
  // An inner pass holds the layer's own step, for a layer that lives as long as it: each call of a pass has weights of
  // its own.
  template <int C, class T>
  static auto train(Self& self, Train& pass, const Var<C, T>& x) {
    const Tensor<double> state = self.next_state(pass);
    const auto layer = std::allocate_shared<M>(PoolAllocator<M>(), self.body);
    layer->weight.any_value() = self.template make<T>(state, self.source().shape());
    layer->weight.requires_grad = self.learns();
    auto forget = [](auto& leaf) {
      if constexpr (requires { leaf.zero_grad(); }) leaf.zero_grad();
    };
    each_leaf(*layer, forget);
    const auto inner = std::allocate_shared<Train>(PoolAllocator<Train>(), Train::from(pass.place()));
    const auto from = x.on(x.id() >= 0 ? inner->tape() : nullptr);
    const auto result = call(*layer, *inner, from);
    const auto y = result.on(pass.tape());
    pass.tape()->record(
        y.id(),
        [&self, layer, inner, state, x_id = x.id(), from_id = from.id(), id = y.id(),
         result_id = result.id()](Tape& tape) {
          Tape& own = *inner->tape();
          own.take_gradient(tape, id, result_id);
          if (x_id >= 0) own.take_gradient(tape, x_id, from_id);
          own.backward();
          if (x_id >= 0) tape.take_gradient(own, from_id, x_id);
          if (layer->weight.has_grad()) self.template back<T>(state, std::as_const(layer->weight.template grad<T>()));
          add_rest<T>(self.body, *layer);
        },
        ParametersOf<Self>{self});
    return y;
  }

  /// Adds the gradients of the copy's other parameters, the bias, to the real ones.
  template <class T>
  static void add_rest(M& real, M& copy) {
    std::vector<Parameter*> from;
    M::visit(copy, [&](const auto&, auto& leaf) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Parameter>) from.push_back(&leaf);
    });
    std::size_t next = 0;
    M::visit(real, [&](const auto& name, auto& leaf) {
      if constexpr (std::is_same_v<std::remove_cvref_t<decltype(leaf)>, Parameter>) {
        Parameter& other = *from[next++];
        if (std::string_view(name) == "weight" || !other.has_grad()) return;
        const auto to = leaf.template grad_target<T>();
        const Tensor<T>& g = other.template grad<T>();
        for (std::int64_t i = 0; i < g.size(); ++i) to.data[i] = (to.accumulate ? to.data[i] : T(0)) + g.data()[i];
      }
    });
  }

  static_assert(
      requires(M& layer) { layer.weight; },
      "strata: SpectralNorm<M> and WeightNorm<M> want a layer with a weight: a convolution or Linear");
};

/// gradient[i] (+)= value, for a step that calls it once for each i.
template <class T>
void add_one(const GradientTarget<T>& to, std::int64_t i, double value) {
  to.data[i] = (to.accumulate ? to.data[i] : T(0)) + T(value);
}

}  // namespace detail

/// The weights W over their largest singular value: W / (u' W v), u and v unit vectors that a training pass moves
/// towards the singular ones by `Iterations` steps of the power method each time it runs the layer; an Infer pass uses
/// them as they are (Miyato, Kataoka, Koyama and Yoshida, 2018). The gradient takes u and v as constants.
template <class M, int Iterations = 1>
class SpectralNorm : public detail::MadeOfOthers<SpectralNorm<M, Iterations>, M, true> {
  using Base = detail::MadeOfOthers<SpectralNorm<M, Iterations>, M, true>;
  friend Base;

 public:
  static constexpr double eps = 1e-12;

  Parameter weight_orig{this->body.weight};
  Buffer weight_u{Shape{weight_orig.shape()[Base::dim]}};
  Buffer weight_v{Shape{weight_orig.size() / weight_orig.shape()[Base::dim]}};

  constexpr SpectralNorm() {
    if (std::is_constant_evaluated()) return;
    Rng rng(0, 0xFFFFFFFDu, 0);  // no epoch's stream
    for (Buffer* buffer : {&weight_u, &weight_v}) {
      double sum = 0;
      for (float& x : buffer->value().span()) {
        x = rng.normal();
        sum += detail::rounded(double(x) * double(x));
      }
      for (float& x : buffer->value().span()) x = float(double(x) / std::sqrt(sum));
    }
  }

  static constexpr void visit(auto& self, auto&& f) {
    Base::visit_rest(self, f);
    f("weight_orig", self.weight_orig);
    f("weight_u", self.weight_u);
    f("weight_v", self.weight_v);
  }
  static std::string name() { return concat("SpectralNorm(", M::name(), ")"); }

 private:
  using Matrix = detail::WeightMatrix<Base::dim>;
  Matrix matrix() const { return {weight_orig.shape()}; }
  const Parameter& source() const { return weight_orig; }
  bool learns() const { return weight_orig.requires_grad; }

  /// u, then v.
  Tensor<double> state() const {
    const std::int64_t rows = matrix().rows(), cols = matrix().cols();
    Tensor<double> uv(Shape{rows + cols});
    double* to = uv.data();
    for (std::int64_t r = 0; r < rows; ++r) to[r] = detail::number_at(weight_u.any_value(), r);
    for (std::int64_t c = 0; c < cols; ++c) to[rows + c] = detail::number_at(weight_v.any_value(), c);
    return uv;
  }
  Tensor<double> next_state(Train& pass) {
    return pass.once([&] {
      Tensor<double> uv = state();
      const Matrix m = matrix();
      double *u = uv.data(), *v = u + m.rows();
      const AnyTensor& w = std::as_const(weight_orig).any_value();
      const auto scaled = [](double* x, std::int64_t size) {
        double sum = 0;
        for (std::int64_t i = 0; i < size; ++i) sum += x[i] * x[i];
        const double below = std::max(std::sqrt(sum), eps);
        for (std::int64_t i = 0; i < size; ++i) x[i] /= below;
      };
      for (int i = 0; i < Iterations; ++i) {
        std::fill_n(v, m.cols(), 0.0);
        std::visit(
            [&](const auto& t) { m.each([&](auto r, auto c, auto place) { v[c] += double(t.data()[place]) * u[r]; }); },
            w);
        scaled(v, m.cols());
        std::fill_n(u, m.rows(), 0.0);
        std::visit(
            [&](const auto& t) { m.each([&](auto r, auto c, auto place) { u[r] += double(t.data()[place]) * v[c]; }); },
            w);
        scaled(u, m.rows());
      }
      for (std::int64_t r = 0; r < m.rows(); ++r) detail::set_number(weight_u.any_value(), r, u[r]);
      for (std::int64_t c = 0; c < m.cols(); ++c) detail::set_number(weight_v.any_value(), c, v[c]);
      return state();  // rounded as they are kept
    });
  }

  template <class T>
  double sigma(const Tensor<double>& uv) const {
    const double *u = uv.data(), *v = u + matrix().rows();
    const T* w = weight_orig.template value<T>().data();
    double sum = 0;
    matrix().each([&](std::int64_t r, std::int64_t c, std::int64_t place) { sum += u[r] * double(w[place]) * v[c]; });
    return sum;
  }
  template <class T>
  Tensor<T> make(const Tensor<double>& uv, const Shape& shape) const {
    const double by = sigma<T>(uv);
    const T* w = weight_orig.template value<T>().data();
    Tensor<T> out(shape);
    T* to = out.data();
    for (std::int64_t i = 0; i < out.size(); ++i) to[i] = T(double(w[i]) / by);
    return out;
  }
  template <class T>
  void back(const Tensor<double>& uv, const Tensor<T>& dw) {
    if (!weight_orig.requires_grad) return;
    const double by = sigma<T>(uv), *u = uv.data(), *v = u + matrix().rows();
    const T* w = std::as_const(weight_orig).template value<T>().data();
    double along = 0;
    for (std::int64_t i = 0; i < dw.size(); ++i) along += double(dw.data()[i]) * double(w[i]);
    const auto to = weight_orig.template grad_target<T>();
    matrix().each([&](std::int64_t r, std::int64_t c, std::int64_t place) {
      detail::add_one(to, place, double(dw.data()[place]) / by - along / (by * by) * u[r] * v[c]);
    });
  }
};

/// The weights g * v / |v|, with a length g and a direction v for each index along the first extent (each output of a
/// convolution, each input of a transposed one), as torch.nn.utils.weight_norm (Salimans and Kingma, 2016). Starts with
/// the layer's own weights; st::initialize draws v and makes every g the square root of 2, about the length
/// kaiming-normal weights have.
template <class M>
class WeightNorm : public detail::MadeOfOthers<WeightNorm<M>, M, false> {
  using Base = detail::MadeOfOthers<WeightNorm<M>, M, false>;
  friend Base;

 public:
  Parameter weight_g{this->body.weight.shape().rank() == 4 ? Shape{this->body.weight.shape()[0], 1, 1, 1}
                                                           : Shape{this->body.weight.shape()[0], 1},
                     1.41421356f};
  Parameter weight_v{this->body.weight};

  constexpr WeightNorm() {
    if (!std::is_constant_evaluated()) set_weight(this->body.weight.template value<float>());
  }
  /// g and v such that the weights are w.
  void set_weight(const Tensor<float>& w) {
    if (w.shape() != weight_v.shape())
      throw ShapeError(concat(name(), ": set_weight: got ", w.shape().str(), ", wanted ", weight_v.shape().str()));
    weight_v.template value<float>() = w.clone();
    const std::vector<double> lengths = row_lengths<float>();
    for (std::size_t r = 0; r < lengths.size(); ++r) weight_g.template value<float>().data()[r] = float(lengths[r]);
  }

  static constexpr void visit(auto& self, auto&& f) {
    Base::visit_rest(self, f);
    f("weight_g", self.weight_g);
    f("weight_v", self.weight_v);
  }
  static std::string name() { return concat("WeightNorm(", M::name(), ")"); }

 private:
  const Parameter& source() const { return weight_v; }
  bool learns() const { return weight_v.requires_grad || weight_g.requires_grad; }
  std::int64_t row_size() const { return weight_v.size() / weight_v.shape()[0]; }

  template <class T>
  std::vector<double> row_lengths() const {
    const T* v = weight_v.template value<T>().data();
    std::vector<double> lengths(std::size_t(weight_v.shape()[0]));
    for (std::int64_t i = 0; i < weight_v.size(); ++i)
      lengths[std::size_t(i / row_size())] += detail::rounded(double(v[i]) * double(v[i]));
    for (double& length : lengths) length = std::sqrt(length);
    return lengths;
  }
  Tensor<double> state() const { return {}; }
  Tensor<double> next_state(Train&) { return {}; }

  template <class T>
  Tensor<T> make(const Tensor<double>&, const Shape& shape) const {
    const std::vector<double> lengths = row_lengths<T>();
    const T *v = weight_v.template value<T>().data(), *g = weight_g.template value<T>().data();
    Tensor<T> out(shape);
    T* to = out.data();
    for (std::int64_t i = 0; i < out.size(); ++i) {
      const std::int64_t r = i / row_size();
      to[i] = T(double(v[i]) * (double(g[r]) / lengths[std::size_t(r)]));
    }
    return out;
  }
  template <class T>
  void back(const Tensor<double>&, const Tensor<T>& dw) {
    const std::vector<double> lengths = row_lengths<T>();
    const T* v = std::as_const(weight_v).template value<T>().data();
    const T* g = std::as_const(weight_g).template value<T>().data();
    std::vector<double> along(lengths.size());
    for (std::int64_t i = 0; i < dw.size(); ++i)
      along[std::size_t(i / row_size())] += double(dw.data()[i]) * double(v[i]);
    if (weight_g.requires_grad) {
      const auto to = weight_g.template grad_target<T>();
      for (std::size_t r = 0; r < along.size(); ++r) detail::add_one(to, std::int64_t(r), along[r] / lengths[r]);
    }
    if (!weight_v.requires_grad) return;
    const auto to = weight_v.template grad_target<T>();
    for (std::int64_t i = 0; i < dw.size(); ++i) {
      const auto r = std::size_t(i / row_size());
      detail::add_one(
          to, i,
          double(g[r]) / lengths[r] * (double(dw.data()[i]) - along[r] * double(v[i]) / (lengths[r] * lengths[r])));
    }
  }
};

}}  // namespace strata::STRATA_ABI
