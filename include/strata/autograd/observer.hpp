// Who wants to hear what a pass runs, layer by layer, forward and back: train/profile.hpp does. A pass that is observed
// by nobody asks once for each layer whether it is.
//
//     struct Mine : st::PassObserver { ... };
//     Mine mine;
//     st::Train pass({.observer = &mine});
//
// A layer stands in the time of the module around it: each begin() of one is followed by an end(), which belongs to the
// last begin() without one. Of layers that run as one step (nn/fuse.hpp) the first one begins, with their number.
#pragma once

#include <cstddef>
#include <string>

#include "strata/core/shape.hpp"
#include "strata/tensor/device.hpp"

namespace strata { inline namespace STRATA_ABI {

/// A layer or module that begins to run.
struct ObservedStep {
  const void* module = nullptr;     ///< its address, and
  const void* type = nullptr;       ///< one address for each type: a module lies where its first member does
  std::string (*name)() = nullptr;  ///< its type, as st::summary prints it
  std::size_t layers = 1;           ///< that run as one step, it and those behind it
  Shape input = {};                 ///< of its input
  std::size_t element_bytes = 4;    ///< of one of the input's numbers
  bool input_gradient = false;      ///< whether the way back computes the gradient of its input
  Device device = Device::cpu();
};

class PassObserver {
 public:
  virtual ~PassObserver() = default;

  virtual void begin(const ObservedStep& step) = 0;
  virtual void end() noexcept = 0;
  /// A number for what now runs: begin_backward() gets it when the way back comes to a step that was recorded here.
  virtual int place() const = 0;
  virtual void begin_backward(int place) = 0;
  virtual void end_backward() noexcept = 0;
};

}}  // namespace strata::STRATA_ABI
