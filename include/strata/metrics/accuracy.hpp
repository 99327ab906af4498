// The share of images whose largest logit is at their label.
//
//     st::accuracy(net(pass, images), labels);      // 0 to 1
#pragma once

#include <algorithm>
#include <cstdint>

#include "strata/core/error.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// `logits` has a channel for each class; labels has N*H*W elements. The first of equal logits counts.
template <int C, class T>
double accuracy(const Image<C, T>& logits, const Tensor<Label>& labels) {
  logits.tensor().require_host("accuracy");
  labels.require_host("accuracy");
  const std::int64_t count = logits.size() / C;
  if (labels.size() != count || count == 0)
    throw ShapeError(
        concat("accuracy: ", labels.size(), " labels for logits of ", logits.shape().str(), ", which want ", count));
  std::int64_t hits = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    const T* row = logits.data() + i * C;
    hits += std::max_element(row, row + C) - row == labels.data()[i];
  }
  return double(hits) / double(count);
}

}}  // namespace strata::STRATA_ABI
