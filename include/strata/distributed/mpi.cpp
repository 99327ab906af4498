// The file that the target strata::mpi adds to a program: with it, World::from_environment() finds ranks that mpirun or
// srun started. By hand: mpicxx program.cpp include/strata/distributed/mpi.cpp
#include "strata/distributed/mpi.hpp"

namespace {
const bool registered = (strata::register_mpi(), true);
}  // namespace
