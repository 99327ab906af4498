// The one source file of the CUDA backend. The CMake target strata::cuda adds it to a program; a program built
// otherwise compiles it with nvcc (-std=c++20) and the same -march as its other files, and links it.
#include "strata/cuda/provider.cuh"
