// What the checkpoints of the fuzzer are of.
#pragma once

#include "strata/io/checkpoint.hpp"
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/lr_scheduler.hpp"
#include "strata/optim/sgd.hpp"

namespace fuzz {

namespace st = strata;

struct Run {
  st::Sequential<st::Conv2d<1, 2, 1>, st::BatchNorm2d<2>> net;
  st::SGD sgd{net, {.lr = 0.1, .momentum = 0.9}};
  st::MultiStepLR scheduler{sgd, {.milestones = {2}}};
};

}  // namespace fuzz
