// How an operator on an image is written: a struct with all that is true of it, kernels, facts and ONNX form.
//
//     struct Mirror {
//       static std::string name() { return "mirror"; }
//       static constexpr bool keeps_input = false, keeps_output = false;       // whether backward reads x, y
//       Shape result(const Shape& x) const;                                    // throws ShapeError
//       template <class T> void forward(const Shape& x_shape, const T* x, T* y) const;
//       template <class T> void backward(const Shape& x_shape, const T* x, const T* y, const T* dy, T* dx,
//                                        bool accumulate) const;
//       void forward_on(Accelerator& gpu, const Shape& x_shape, const float* x, float* y) const;  // both, or the CPU
//       void backward_on(Accelerator& gpu, const Shape& x_shape, const float* dy, float* dx, bool accumulate) const;
//       constexpr void trace(auto& t) const;                                   // nn/following.hpp
//       template <int Out> auto onnx(const auto& x) const;                     // io/onnx_export.hpp
//     };
//     auto y = st::detail::apply_operator<C>(pass, Mirror{}, x);               // Var<C>
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "strata/autograd/backend.hpp"
#include "strata/autograd/expression.hpp"
#include "strata/autograd/pass.hpp"
#include "strata/autograd/symbolic.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Whether accelerators have the operator, too.
template <class Op>
concept has_device_kernels = requires(const Op& op, Accelerator& gpu, const Shape& shape, float* x) {
  op.forward_on(gpu, shape, x, x);
  op.backward_on(gpu, shape, x, x, false);
};

/// here(), or there(accelerator, op) where `device` is one and the operator has kernels for it.
template <class T, class Op, class Here, class There>
void run_operator(Device device, const Op& op, Here&& here, There&& there) {
  if constexpr (has_device_kernels<Op>)
    dispatch<T>(device, here, [&](auto& gpu) { there(gpu, op); });
  else
    here();
}

/// Runs an operator. One that the CPU alone has is a DeviceError on an accelerator.
template <int Out, Pass P, class Op, class X>
constexpr auto apply_operator(P& pass, const Op& op, const X& input) {
  if constexpr (Symbolic<X>) {
    return SymbolicRun<typename X::value_type>::template op<Out>(op, var_in<P>(input));
  } else {
    return [&]<int C, class T>(const Var<C, T>& x) {
      check_pass(pass, x, "an operator");
      if constexpr (!has_device_kernels<Op>) check_on_cpu(x.device(), x.device(), &Op::name);
      const Shape from = x.shape(), to = op.result(from);
      Image<Out, T> image(to.n(), to.h(), to.w(), x.pool());
      run_operator<T>(
          x.device(), op, [&] { op.template forward<T>(from, x.data(), image.data()); },
          [&](auto& gpu, const auto& it) { it.forward_on(gpu, from, x.data(), image.data()); });
      auto y = pass.output(std::move(image));
      if constexpr (P::training) {
        const auto step = [op, from, device = x.device(), x_id = x.id(), id = y.id(),
                           kept_x = Op::keeps_input ? x : Var<C, T>(),
                           kept_y = Op::keeps_output ? y : Var<Out, T>()](Tape& tape) {
          const auto dx = tape.target<T>(x_id);
          if (!dx) return;
          const T* const dy = tape.gradient<T>(id);
          run_operator<T>(
              device, op,
              [&] {
                op.template backward<T>(from, Op::keeps_input ? kept_x.data() : nullptr,
                                        Op::keeps_output ? kept_y.data() : nullptr, dy, dx.data, dx.accumulate);
              },
              [&](auto& gpu, const auto& it) { it.backward_on(gpu, from, dy, dx.data, dx.accumulate); });
        };
        if constexpr (Op::keeps_input && Op::keeps_output)
          pass.tape()->record(y.id(), step, x, y);
        else if constexpr (Op::keeps_input)
          pass.tape()->record(y.id(), step, x);
        else if constexpr (Op::keeps_output)
          pass.tape()->record(y.id(), step, y);
        else
          pass.tape()->record(y.id(), step);
      }
      return y;
    }(var_in(pass, input));
  }
}

}}}  // namespace strata::STRATA_ABI::detail
