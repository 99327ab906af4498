// A program whose only header, besides the standard library's, is the one that scripts/amalgamate.py writes. What it
// uses is quick to compile.
#include "strata.hpp"

#include <cstdio>

int main() {
  strata::PReLU<3> net;  // slope 0.25: learns 0.75
  strata::SGD sgd(net, {.lr = 1});
  const auto x = strata::Image<3>::full(1, 8, 8, -1), wanted = strata::Image<3>::full(1, 8, 8, -0.75f);
  float first = 0, last = 0;
  for (int step = 0; step < 10; ++step) {
    strata::Train pass;
    const auto loss = strata::MSELoss()(net(pass, x), wanted);
    sgd.zero_grad();
    pass.backward(loss);
    sgd.step();
    (step == 0 ? first : last) = loss.item();
  }
  strata::save_image("single_header.png", strata::Image<3>::full(1, 8, 8, 0.5f));  // by the stb that is in the header
  const auto image = strata::load_image<3>("single_header.png");
  std::printf("Strata %s in one header: loss %g, then %g\n", STRATA_VERSION, double(first), double(last));
  return last < 0.1f * first && image.size() == 192 ? 0 : 1;
}
