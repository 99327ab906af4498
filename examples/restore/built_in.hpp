// The weights that the program carries: safetensors files of float32.
#pragma once

#include <span>

#include "engine.hpp"

namespace restore {

std::span<const char> built_in(Task task);

}  // namespace restore
