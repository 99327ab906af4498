// What a test asks of the fake cuBLASLt, besides cuBLASLt's own functions. A product costs 4 ms.
#pragma once

#include <cstddef>

extern "C" {
/// Handles count too.
std::size_t fake_cublas_live_descriptors();
/// Lets it propose no algorithm.
void fake_cublas_refuse(bool on);
}
