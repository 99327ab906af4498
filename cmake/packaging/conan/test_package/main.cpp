// Quick to compile: the package is well when its headers, and stb's, are found.
#include <strata/data/image_file.hpp>
#include <strata/version.hpp>

#include <cstdio>

int main() {
  strata::save_image("program.png", strata::Image<3>::full(1, 4, 4, 0.5f));
  const auto image = strata::load_image<3>("program.png");
  std::printf("Strata %s: %lld values\n", STRATA_VERSION, static_cast<long long>(image.size()));
  return image.size() == 48 ? 0 : 1;
}
