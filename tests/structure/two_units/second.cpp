// Here the macros of other systems' headers come first, and the headers of the library in another order.
#define STRATA_WHOLE
#include "../system_macros.hpp"

#include "strata/io/weights.hpp"
#include "strata/data/dead_leaves.hpp"
#include "strata/core/parallel.hpp"
#include "unit.hpp"

#include "describe.hpp"

Unit second() { return describe(); }
