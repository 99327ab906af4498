// The old name of Subtract, y = x - body(x) (nn/add.hpp). In the literature a residual block is y = x + body(x): that
// is Add.
#pragma once

#include "strata/nn/add.hpp"

namespace strata::inline STRATA_ABI {

template <class Body>
using Residual = Subtract<Body>;

}  // namespace strata::inline STRATA_ABI
