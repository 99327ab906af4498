// expect: DataLoader<D>: D must have 'std::size_t size() const' and 'get(std::size_t, Rng&) const'
#include "strata/data/data_loader.hpp"

namespace st = strata;

struct Images {
  std::size_t size() const { return 1; }
#ifdef FAIL
  st::Sample<1> get(std::size_t) const { return {}; }
#else
  st::Sample<1> get(std::size_t, st::Rng&) const { return {}; }
#endif
};

int main() {
  Images images;
  st::DataLoader loader(images, {.batch_size = 1});
  return int(loader.size());
}
