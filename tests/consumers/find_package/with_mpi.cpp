// A program with strata::mpi, started by itself: one rank.
#include <cstdio>

#include "strata/distributed/world.hpp"

int main() {
  const strata::World world = strata::World::from_environment();
  std::printf("%d rank\n", world.size());
  const bool linked = strata::detail::world_provider.load() != nullptr;
  return world.size() == 1 && world.is_first() && linked ? 0 : 1;
}
