// What the blocks of C++ in the documents may use without a word: see snippets.py.
#pragma once

#include <strata/strata.hpp>

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace st = strata;

using Net = st::Residual<st::Sequential<st::Conv2d<1, 8>, st::ReLU, st::Conv2d<8, 1>>>;
inline Net net;
inline st::Adam adam(net, {.lr = 1e-3});
inline const st::MSELoss mse;
inline const st::MemoryImages<1> images(st::DeadLeaves<1>({.size = 4}));
inline const st::NoisyPatches patches(images, {.patch_size = 32, .size = 16, .sigma = 25});
inline const st::DataLoader loader(patches, {.batch_size = 4, .shuffle = true});
inline const st::Image<1> noisy = st::Image<1>::full(1, 32, 32, 0.5f), clean = noisy, image = noisy;
