// Batches cut into shards: samples_of() takes a part of a batch's samples.
//
//     const auto second = st::samples_of(batch.input, 1, 4);             // the second quarter of its images
//
// For a batch type of your own, write a function of this name beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

#include "strata/core/error.hpp"
#include "strata/data/sample.hpp"
#include "strata/kernels/transfer.hpp"
#include "strata/tensor/image.hpp"

namespace strata { inline namespace STRATA_ABI {

/// One of `parts` parts of a batch's samples, as many in each, in memory of their own. For a batch type of your own, a
/// function of this name beside it.
template <class T>
Tensor<T> samples_of(const Tensor<T>& batch, std::int64_t part, std::int64_t parts) {
  if (batch.shape().rank() == 0 || batch.shape()[0] % parts != 0)
    throw ShapeError(
        concat("DataParallel: a batch of shape ", batch.shape().str(), " cannot be cut into ", parts, " shards"));
  Shape shape{batch.shape()[0] / parts};
  for (int axis = 1; axis < batch.shape().rank(); ++axis) shape.push_back(batch.shape()[axis]);
  Tensor<T> samples(shape, batch.pool());
  copy_bytes(samples.data(), samples.device(), batch.data() + part * samples.size(), batch.device(),
             std::size_t(samples.size()) * sizeof(T));
  return samples;
}
template <int C, class T>
Image<C, T> samples_of(const Image<C, T>& batch, std::int64_t part, std::int64_t parts) {
  return Image<C, T>(samples_of(batch.tensor(), part, parts));
}

template <class... Ts>
std::tuple<Ts...> samples_of(const std::tuple<Ts...>& batch, std::int64_t part, std::int64_t parts) {
  return std::apply([&](const auto&... one) { return std::tuple<Ts...>{samples_of(one, part, parts)...}; }, batch);
}
template <class A, class B>
Pair<A, B> samples_of(const Pair<A, B>& batch, std::int64_t part, std::int64_t parts) {
  auto input = samples_of(batch.input, part, parts);
  return {std::move(input), samples_of(batch.target, part, parts)};
}

}}  // namespace strata::STRATA_ABI
