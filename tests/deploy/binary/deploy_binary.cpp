// A program that runs a folded network and does nothing else: loads weights, runs, prints a sum. symbols.py looks at what
// the linker put into it.
#include <cstdio>

#include "strata/deploy/fold.hpp"
#include "strata/io/weights.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/dropout.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"

namespace st = strata;

template <int W>
using Block = st::Sequential<st::Conv2d<W, W, 3, st::no_bias>, st::BatchNorm2d<W>, st::ReLU, st::Dropout>;
using Net = st::Residual<st::Sequential<st::Conv2d<1, 16>, st::ReLU, st::Repeat<4, Block<16>>, st::Conv2d<16, 1>>>;

int main(int argc, char** argv) {
  st::deploy_t<Net> net;
  if (argc > 1) st::load_weights(argv[1], net);
  st::Infer pass;
  const st::Image<1> out = net(pass, st::Image<1>::full(1, 24, 24, 0.5f)).value();
  double sum = 0;
  for (const float x : out.span()) sum += double(x);
  std::printf("%g\n", sum);
}
