// How many processors this process may use: those of its affinity mask (taskset, a job scheduler, cpusets), and no more
// than the quotas of its control groups (docker --cpus, Kubernetes' limits, systemd's CPUQuota) pay for.
//
//     int threads = st::usable_processors();
#pragma once

#include "strata/core/config.hpp"

namespace strata::inline STRATA_ABI {

/// Processors that this process may use, 1 to 1024. On systems other than Linux: those that the machine has.
int usable_processors();

}  // namespace strata::inline STRATA_ABI

#ifndef STRATA_COMPILED
#include "strata/core/processors_impl.hpp"
#endif
