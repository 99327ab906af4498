// Rows of shards whose network is on a device, summed in its memory: the same tree as distributed/tree_sum.hpp, between
// ranks over an engine that exchanges memory of devices. So the bits are those of the host's sums.
//
//     DeviceSum sum(ranks, std::move(devices), gpu);
//     sum.begin();
//     sum.add(front, pieces);                                  // one shard after another: numbers of the host, tensors
//     const float* mean = sum.over(1.0f / shards, front);      // on all ranks; its front comes back to the host
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "strata/distributed/communicator.hpp"
#include "strata/distributed/device_ranks.hpp"
#include "strata/kernels/accelerator.hpp"
#include "strata/tensor/tensor.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

/// Numbers on the device, or as many zeros.
struct DevicePiece {
  const float* data = nullptr;
  std::int64_t size = 0;
};

class DeviceSum {
 public:
  DeviceSum(Communicator& ranks, std::unique_ptr<DeviceRanks> devices, Accelerator& gpu)
      : ranks_(ranks), devices_(std::move(devices)), gpu_(gpu) {}

  Device device() const { return gpu_.device(); }

  /// Whether a rank's shards are a whole part of the tree.
  bool sums(int own_shards) const {
    const auto power_of_two = [](int n) { return (n & (n - 1)) == 0; };
    return power_of_two(own_shards) && power_of_two(ranks_.size());
  }

  void begin() { parts_.clear(); }

  /// The row of the next of this rank's shards.
  void add(std::span<const float> front, std::span<const DevicePiece> pieces) {
    std::int64_t count = std::int64_t(front.size());
    for (const DevicePiece& piece : pieces) count += piece.size;
    Part part{0, take(count)};
    float* to = part.row.data();
    gpu_.upload(to, front.data(), front.size_bytes());
    to += front.size();
    for (const DevicePiece& piece : pieces) {
      if (piece.data != nullptr)
        gpu_.copy(to, piece.data, std::size_t(piece.size) * sizeof(float));
      else
        gpu_.fill(to, piece.size, 0);
      to += piece.size;
    }
    while (!parts_.empty() && parts_.back().level == part.level) {  // neighbours
      Part left = std::move(parts_.back());
      parts_.pop_back();
      gpu_.copy_channels(count, 1, part.row.data(), 1, 0, left.row.data(), 1, 0, true);
      spare_ = std::move(part.row);
      part = {left.level + 1, std::move(left.row)};
    }
    parts_.push_back(std::move(part));
  }

  /// The sum over all shards of all ranks, times `factor`: a row, valid until the next begin(). Its first numbers come
  /// to the host, too.
  const float* over(float factor, std::span<float> front) {
    Tensor<float>& row = parts_.front().row;
    Tensor<float> other = take(row.size());
    butterfly_sum(ranks_.rank(), ranks_.size(), *devices_, gpu_, row.data(), other.data(), std::size_t(row.size()));
    spare_ = std::move(other);
    const TensorSpan all{row.size(), row.data()};
    gpu_.scale(std::span(&all, 1), double(factor));
    devices_->wait();
    gpu_.download(front.data(), row.data(), front.size_bytes());
    return std::as_const(row).data();
  }

 private:
  struct Part {
    int level;
    Tensor<float> row;
  };
  Tensor<float> take(std::int64_t count) {
    if (spare_.size() == count) return std::exchange(spare_, Tensor<float>());
    return Tensor<float>(Shape{count}, gpu_.pool());
  }

  Communicator& ranks_;
  std::unique_ptr<DeviceRanks> devices_;
  Accelerator& gpu_;
  std::vector<Part> parts_;
  Tensor<float> spare_;
};

}}}  // namespace strata::STRATA_ABI::detail
