// Writes and reads pictures and weights, and says what came: program FOLDER. With strata::compiled and without it the same.
#include <cstdint>
#include <cstdio>
#include <string>

#include "strata/core/parallel.hpp"
#include "strata/data/image_file.hpp"
#include "strata/io/safetensors.hpp"
#include "strata/io/weights_file.hpp"

namespace st = strata;

int main(int, char** arguments) {
  const std::string folder = arguments[1];
  st::Image<3> image(1, 5, 7);
  for (std::int64_t i = 0; i < image.size(); ++i) image.data()[i] = float(i * 37 % 105) / 104.0f;
  st::save_image(folder + "/picture.png", image, {.bits = 16});
  st::save_image(folder + "/picture.jpg", image);
  const auto luma = st::load_image<1>(folder + "/picture.jpg", {.convert = true});
  double sum = 0;
  for (const float value : luma.span()) sum += double(value);

  const st::AnyTensor tensor = st::load_image<3>(folder + "/picture.png").tensor();
  st::write_safetensors(folder + "/weights.safetensors", {{"a.weight", &tensor}}, {{"key", "value"}}, {.checksum = true});
  const st::WeightsFile file(folder + "/weights.safetensors");
  file.verify_checksums();
  const auto read = file.read<double>(*file.find("a.weight"));
  st::set_num_threads(2);
  st::parallel_for(read.size(), [&](std::int64_t i) { (void)read.data()[i]; });
  std::printf("%.17g %.17g %s %d\n", sum, read.data()[4], file.metadata().at("key").c_str(), st::num_threads());
  try {
    (void)st::load_image<3>(folder + "/weights.safetensors");
  } catch (const st::FileError& error) {
    std::printf("%s\n", std::string(error.what()).substr(folder.size()).c_str());
  }
}
