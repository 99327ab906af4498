// A program with stb of its own: the implementation of stb_image before Strata's headers and that of stb_image_write
// after them, both with external linkage. The other files of this test program include Strata's images too.
#undef STRATA_COMPILED  // the headers bring Strata's own into this file
#define STB_IMAGE_IMPLEMENTATION
#define STBI_MAX_DIMENSIONS 100
#if __has_include(<stb/stb_image.h>)
#include <stb/stb_image.h>
#else
#include <stb_image.h>
#endif

#include "strata/data/image_file.hpp"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#if __has_include(<stb/stb_image_write.h>)
#include <stb/stb_image_write.h>
#else
#include <stb_image_write.h>
#endif

#include <doctest/doctest.h>

#include <vector>

#include "temporary_folder.hpp"

#if !defined(STB_IMAGE_IMPLEMENTATION) || STBI_MAX_DIMENSIONS != 100 || !defined(STBI_INCLUDE_STB_IMAGE_H)
#error "strata changed the settings of the program's own stb"
#endif
#if defined(STB_IMAGE_STATIC) || defined(STBI_ONLY_PNG) || defined(STBI_NO_STDIO) || defined(STB_IMAGE_WRITE_STATIC)
#error "strata left its settings of stb behind"
#endif

namespace st = strata;

TEST_CASE("a program's own stb and Strata's live side by side") {
  const strata_test::TemporaryFolder folder;
  const std::vector<unsigned char> grey{0, 51, 102, 153, 204, 255};
  const std::string name = (folder / "a.png").string();
  REQUIRE(stbi_write_png(name.c_str(), 3, 2, 1, grey.data(), 3) != 0);
  const auto image = st::load_image<1>(name);
  CHECK(image.shape() == st::Shape{1, 1, 2, 3});
  CHECK(image(0, 0, 1, 2) == 1.0f);

  st::save_image(name, image);
  int w = 0, h = 0, channels = 0;
  unsigned char* pixels = stbi_load(name.c_str(), &w, &h, &channels, 0);
  REQUIRE(pixels != nullptr);
  CHECK(std::vector<unsigned char>(pixels, pixels + 6) == grey);
  stbi_image_free(pixels);

  st::save_image(name, st::Image<1>::full(1, 2, 101, 0.5f));
  CHECK(stbi_load(name.c_str(), &w, &h, &channels, 0) == nullptr);  // its own limit, not Strata's
  CHECK(st::load_image<1>(name).w() == 101);
}
