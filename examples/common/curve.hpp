// The curves of a run's folder: the library's.
#pragma once

#include "strata/train/curve.hpp"

namespace curve {

using Panel = strata::CurvePanel;
using strata::write_curves;

}  // namespace curve
