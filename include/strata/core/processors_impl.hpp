// Definitions of core/processors.hpp.
#pragma once

#include "strata/core/processor_counts.hpp"
#include "strata/core/processors.hpp"

namespace strata::inline STRATA_ABI {

STRATA_INLINE int usable_processors() {
  return detail::threads_for(detail::affinity_processors(), detail::cgroup_quota());
}

}  // namespace strata::inline STRATA_ABI
