// What a loss compares a prediction with: an image, a number for each sample, or one for all.
#pragma once

#include "strata/autograd/variable.hpp"
#include "strata/tensor/image.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Read "loss_channels_of<A, B>" in the compiler's text: A and B are the channel counts.
template <int A, int B>
struct loss_channels_of {
  static_assert(A == B,
                "strata: a loss of images of different channel counts: read loss_channels_of<A, B> beside this "
                "message: the prediction has A channels, the target B");
};
/// The target for a prediction. One number for each sample, a tensor of shape (N), is N images of one pixel; others are
/// as they are. Unlike in other arithmetic one channel is not repeated: a target with too few is a mistake.
template <class P, class X>
decltype(auto) loss_target([[maybe_unused]] const P& prediction, const X& target) {
  if constexpr (requires { X::channels; }) {
    if constexpr (P::channels != X::channels) {
      static_assert(sizeof(loss_channels_of<P::channels, X::channels>) > 0);
      return (prediction);  // any right type: nothing else fails after the sentence above
    } else {
      return (target);
    }
  } else if constexpr (IsTensor<X>::value) {
    if constexpr (P::channels != 1) {
      static_assert(sizeof(loss_channels_of<P::channels, 1>) > 0);
      return (prediction);
    } else {
      return []<class T>(const Tensor<T>& numbers) {
        return Image<1, T>(numbers.reshaped(Shape{numbers.size(), 1, 1, 1}));
      }(target);
    }
  } else {
    return (target);  // one number for all
  }
}

}}}  // namespace strata::STRATA_ABI::detail
