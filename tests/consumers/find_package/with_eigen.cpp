#include <strata/interop/eigen.hpp>

int main() {
  auto image = strata::Image<3>::full(1, 2, 2, 0.5f);
  return strata::as_matrix(image).sum() == 6.0f ? 0 : 1;
}
