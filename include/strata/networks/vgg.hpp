// The convolutional part of VGG-19, whose features perceptual losses compare (Simonyan and Zisserman: "Very Deep Convolutional
// Networks for Large-Scale Image Recognition", ICLR 2015; Johnson, Alahi and Fei-Fei: "Perceptual Losses", ECCV 2016).
//
//     st::networks::VGG19Features<> net;
//     st::load_weights("vgg19-dcbb9e9d.pth", net, {.ignore = {"classifier"}});
//     st::networks::VGG19Features<35>                       // its first 35 layers: up to conv5_4, before the ReLU, as ESRGAN
//
// Names as in torchvision (features.0 ...). Images are RGB, normalised by ImageNet's mean (0.485, 0.456, 0.406) and deviation
// (0.229, 0.224, 0.225). 20 024 384 parameters, 0.39 million multiply-adds for each pixel, receptive field 268.
#pragma once

#include <cstddef>
#include <tuple>
#include <utility>

#include "strata/networks/building.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/facts.hpp"
#include "strata/nn/pooling.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/sequential.hpp"

namespace strata::inline STRATA_ABI::networks {

using VGG19Layers = std::tuple<                                                                              //
    Conv2d<3, 64>, ReLU, Conv2d<64, 64>, ReLU, MaxPool2d<2>,                                                 // 0
    Conv2d<64, 128>, ReLU, Conv2d<128, 128>, ReLU, MaxPool2d<2>,                                             // 5
    Conv2d<128, 256>, ReLU, Conv2d<256, 256>, ReLU, Conv2d<256, 256>, ReLU, Conv2d<256, 256>, ReLU, MaxPool2d<2>,  // 10
    Conv2d<256, 512>, ReLU, Conv2d<512, 512>, ReLU, Conv2d<512, 512>, ReLU, Conv2d<512, 512>, ReLU, MaxPool2d<2>,  // 19
    Conv2d<512, 512>, ReLU, Conv2d<512, 512>, ReLU, Conv2d<512, 512>, ReLU, Conv2d<512, 512>, ReLU, MaxPool2d<2>>;  // 28

template <int Layers = 37>
class VGG19Features : public Layer<VGG19Features<Layers>> {
  static_assert(Layers >= 1 && Layers <= 37, "strata::networks::VGG19Features<Layers>: there are 37 layers to take the first of");

  template <std::size_t... I>
  static Sequential<std::tuple_element_t<I, VGG19Layers>...> first(std::index_sequence<I...>);
  using Features = decltype(first(std::make_index_sequence<std::size_t(Layers)>()));

 public:
  using io = typename Features::io;
  using keeps_its_form = void;
  static constexpr bool has_state = true;

  Features features;

  static constexpr void visit(auto& self, auto&& f) { f("features", self.features); }
  template <Pass P>
  static constexpr auto forward(auto& self, P& pass, const auto& x) {
    return self.features(pass, x);
  }
};

static_assert(parameter_count<VGG19Features<>> == 20024384);

}  // namespace strata::inline STRATA_ABI::networks
