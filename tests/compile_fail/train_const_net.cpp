// expect: this module is const, and a Train pass changes it
#include "strata/nn/batch_norm.hpp"

namespace st = strata;

int main() {
#ifdef FAIL
  const st::BatchNorm2d<4> net;
#else
  st::BatchNorm2d<4> net;
#endif
  st::Train pass;
  return int(net(pass, st::Image<4>::full(1, 8, 8, 0.5f)).n());
}
