// expect: a module is called with a pass: 'st::Infer pass; net(pass, x)', or st::Train to train
#include "strata/nn/relu.hpp"

namespace st = strata;

int main() {
  const st::ReLU relu;
  st::Infer pass;
  const auto x = st::Image<1>::full(1, 8, 8, 0.5f);
#ifdef FAIL
  return int(relu(x).n());
#else
  return int(relu(pass, x).n());
#endif
}
