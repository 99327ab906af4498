// What a dataset gives and what a network is trained on: an input and the target for it.
//
//     st::Sample<1> sample{noisy, clean};           // two grey images
//     auto& [input, target] = sample;
#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include "strata/tensor/image.hpp"

namespace strata::inline STRATA_ABI {

template <class Input, class Target>
struct Pair {
  Input input;
  Target target;
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

}  // namespace strata::inline STRATA_ABI

template <class Input, class Target>
struct std::tuple_size<strata::LoadedBatch<Input, Target>> : std::integral_constant<std::size_t, 2> {};
template <std::size_t I, class Input, class Target>
struct std::tuple_element<I, strata::LoadedBatch<Input, Target>> {
  using type = std::conditional_t<I == 0, Input, Target>;
};
