#include "unit.hpp"

#include "describe.hpp"
#include "strata/cuda.hpp"

Unit first() { return describe(); }

std::string first_misses() { return strata::cuda_missing(); }
