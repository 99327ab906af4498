#include "unit.hpp"

#include "describe.hpp"

Unit baseline() { return describe(); }

void baseline_registers_cuda() {
  static const strata::AcceleratorProvider provider{
      .count = [] { return 1; }, .missing = [](int) { return std::string(); }, .get = nullptr};
  strata::register_cuda(provider);
}
