// A description of the unit that includes this file. Static: each unit has its own.
#pragma once

#include "strata/strata.hpp"
#include "unit.hpp"

static Unit describe() {
  strata::Image<3> image = strata::Image<3>::full(1, 2, 2, 0.5f);
  double sum = 0;
  for (const float value : image.span()) sum += double(value);
  return {STRATA_ISA, &strata::cpu_pool(), sum};
}
