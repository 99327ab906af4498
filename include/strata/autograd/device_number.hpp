// A number that an accelerator has computed and nobody has looked at yet.
//
//     const DeviceNumber loss(gpu.pool().take(sizeof(float)));
//     loss.read();                                                // waits for the device, the first time
#pragma once

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "strata/core/error.hpp"
#include "strata/kernels/accelerator.hpp"
#include "strata/tensor/storage.hpp"

namespace strata { inline namespace STRATA_ABI { namespace detail {

class DeviceNumber : public std::enable_shared_from_this<DeviceNumber> {
 public:
  explicit DeviceNumber(Storage place) : place_(std::move(place)) {}

  MemoryPool& pool() const { return place_.pool(); }
  Accelerator& gpu() const { return accelerator(place_.device()); }
  float* data() const { return static_cast<float*>(place_.data()); }

  /// It is computed from this one.
  void add_part(const std::shared_ptr<DeviceNumber>& part) { parts_.push_back(part); }
  /// Who reads it is told where it is not finite: "what <value> kept". So is who reads what it was computed from, where
  /// that is not finite either.
  void must_be_finite(const char* what, const char* kept) {
    what_ = what;
    kept_ = kept;
    tell_parts(shared_from_this());
  }
  /// Who reads it is told of another one as well.
  void goes_with(std::shared_ptr<DeviceNumber> other) { other_ = std::move(other); }

  /// Throws NumericError where it, or what goes with it, is not finite and must be.
  float read() {
    if (!known_) {
      gpu().download(&value_, place_.data(), sizeof value_);
      known_ = true;
    }
    if (!std::isfinite(value_)) {
      if (kept_ != nullptr) throw NumericError(concat(what_, value_, kept_));
      if (loss_ != nullptr) loss_->read();
    } else if (other_ != nullptr) {
      other_->read();
    }
    return value_;
  }

 private:
  void tell_parts(const std::shared_ptr<DeviceNumber>& loss) {
    for (const auto& part : std::exchange(parts_, {})) {  // nobody holds another in a circle
      part->loss_ = loss;
      part->tell_parts(loss);
    }
  }

  Storage place_;
  float value_ = 0;
  bool known_ = false;
  const char *what_ = nullptr, *kept_ = nullptr;
  std::vector<std::shared_ptr<DeviceNumber>> parts_;
  std::shared_ptr<DeviceNumber> loss_, other_;  // that it is a part of; that goes with it
};

}}}  // namespace strata::STRATA_ABI::detail
