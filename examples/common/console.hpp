// What a training program shows while it runs, and how it is stopped: the library's.
#pragma once

#include "strata/train/console.hpp"

namespace console {

using strata::clock_text;
using strata::Interrupt;
using strata::Progress;
using strata::Stopwatch;

}  // namespace console
