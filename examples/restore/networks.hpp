// The networks that strata-restore knows, one for each task.
#pragma once

#include "../ffdnet/networks.hpp"
#include "../super_resolution/networks.hpp"
#include "engine.hpp"

namespace restore {

/// Calls use(Net*) with a null pointer of the task's network, for its type.
template <class Use>
auto with_network(Task task, Use&& use) {
  using GreyDenoiser = ffdnet::FFDNet<1>;
  using ColourDenoiser = ffdnet::FFDNet<3>;
  using Upscaler = super_resolution::SuperResolution<>;
  if (task == Task::denoise_grey) return use(static_cast<GreyDenoiser*>(nullptr));
  if (task == Task::denoise_colour) return use(static_cast<ColourDenoiser*>(nullptr));
  return use(static_cast<Upscaler*>(nullptr));
}

}  // namespace restore
