// What a dataset gives and what a network is trained on: an input and the target for it.
//
//     st::Sample<1> sample{noisy, clean};           // two grey images
//     auto& [input, target] = sample;
//
// What a sample is made of, and what a batch of it is (data/collate.hpp):
//
//     Image<C>                       images                     Image<C> of N images
//     float, double                  one number to predict      Tensor<float> of shape (N), for losses on Var<1>
//     Vector<C>               C numbers to predict       Image<C> of N images of one pixel, as Linear<.., C> gives them
//     an integer                     a class                    Tensor<Label> of shape (N)
//     Tensor<Label> of shape (H, W)  each pixel's class         Tensor<Label> of shape (N, H, W)
//     std::tuple or Pair of these    more than one        the same of batches: st::Pair{std::tuple{image, mask}, clean}
#pragma once

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

template <class Input, class Target>
struct Pair {
  Input input;
  Target target;
};
template <class Input, class Target>
Pair(Input, Target) -> Pair<Input, Target>;

/// C numbers, as a sample's target or input.
template <int C>
struct Vector {
  static_assert(C > 0, "strata::Vector<C>: the number of values C must be positive");
  std::array<float, std::size_t(C)> values{};

  float& operator[](std::size_t i) { return values[i]; }
  float operator[](std::size_t i) const { return values[i]; }
  bool operator==(const Vector&) const = default;
};

/// An image and the image it should become.
template <int C>
using Sample = Pair<Image<C>, Image<C>>;

/// An image and the number of its class.
template <int C>
using LabelledSample = Pair<Image<C>, Label>;

/// A batch as a DataLoader gives it: auto& [input, target] = batch;
template <class Input, class Target>
struct LoadedBatch : Pair<Input, Target> {
  int shards = 1;  ///< that it holds, one after another, of as many samples each: LoaderOptions::shards over the ranks

  template <std::size_t I>
  auto& get() & { return part<I>(*this); }
  template <std::size_t I>
  const auto& get() const& { return part<I>(*this); }
  template <std::size_t I>
  auto get() && { return std::move(part<I>(*this)); }

 private:
  template <std::size_t I>
  static auto& part(auto& self) {
    if constexpr (I == 0)
      return self.input;
    else
      return self.target;
  }
};

}}  // namespace strata::STRATA_ABI

template <class Input, class Target>
struct std::tuple_size<strata::LoadedBatch<Input, Target>> : std::integral_constant<std::size_t, 2> {};
template <std::size_t I, class Input, class Target>
struct std::tuple_element<I, strata::LoadedBatch<Input, Target>> {
  using type = std::conditional_t<I == 0, Input, Target>;
};
