// The network of the optimiser tests and of tests/golden/optim_golden.py: a weight of 4 x 3 and a bias of 5.
#pragma once

#include <cmath>

#include "strata/optim/optimizer.hpp"

namespace optim_test {

struct Net {
  strata::Parameter weight{strata::Shape{4, 3}};
  strata::Parameter bias{strata::Shape{5}};
  static constexpr void visit(auto& self, auto&& f) {
    f("weight", self.weight);
    f("bias", self.bias);
  }
};

struct Empty {
  strata::Buffer mean{strata::Shape{2}};
  static constexpr void visit(auto& self, auto&& f) { f("mean", self.mean); }
};

template <class T>
void start(Net& net) {
  strata::to<T>(net);
  int i = 0;
  strata::for_each_parameter(net, [&](const std::string&, strata::Parameter& parameter) {
    for (T& x : parameter.value<T>().span()) x = T(std::sin(double(++i)));
  });
}

template <class T>
void set_gradients(Net& net, int step) {
  int i = 0;
  strata::for_each_parameter(net, [&](const std::string&, strata::Parameter& parameter) {
    parameter.zero_grad();
    T* grad = parameter.grad_target<T>().data;
    for (std::int64_t k = 0; k < parameter.size(); ++k) grad[k] = T(std::cos(0.7 * (step + 1) * ++i));
  });
}

}  // namespace optim_test
