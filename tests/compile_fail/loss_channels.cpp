// expect: a loss of images of different channel counts
// expect-context: loss_channels_of<3, 1>
#include "strata/autograd/pass.hpp"
#include "strata/nn/loss.hpp"

namespace st = strata;

int main() {
  const st::Image<3> prediction(1, 8, 8);
#ifdef FAIL
  const st::Image<1> target(1, 8, 8);
#else
  const st::Image<3> target(1, 8, 8);
#endif
  st::Train pass;
  const auto loss = st::MSELoss{}(pass.watch(prediction), target);
  pass.backward(loss);
  return int(loss.item());
}
