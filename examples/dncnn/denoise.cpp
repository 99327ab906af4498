// Denoises pictures.
//
//     dncnn_denoise --weights dncnn.safetensors noisy.png clean.png
//     dncnn_denoise --weights dncnn.safetensors noisy_folder clean_folder
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "../common/device.hpp"
#include "weights.hpp"

namespace {

namespace fs = std::filesystem;

/// The network on an image of its own number of channels.
template <class Net, int C>
st::Image<C> run(const Net& net, const st::Image<C>& image, const st::InferOptions& options) {
  st::Infer pass(options);
  return net(pass, image.to(st::device_of(net))).value().to(st::Device::cpu());
}

/// A grey network on each channel of a colour image. The channels stand in for a batch.
template <class Net>
st::Image<3> run_each_channel(const Net& net, const st::Image<3>& image, const st::InferOptions& options) {
  st::Image<1> planes(3, image.h(), image.w());
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < image.h(); ++y)
      for (std::int64_t x = 0; x < image.w(); ++x) planes(c, 0, y, x) = image(0, c, y, x);
  planes = run(net, planes, options);
  st::Image<3> out(1, image.h(), image.w());
  for (int c = 0; c < 3; ++c)
    for (std::int64_t y = 0; y < image.h(); ++y)
      for (std::int64_t x = 0; x < image.w(); ++x) out(0, c, y, x) = planes(c, 0, y, x);
  return out;
}

template <class Net>
void denoise(const Net& net, const fs::path& input, const fs::path& output, const st::InferOptions& options) {
  const bool grey = st::read_image_info(input).channels <= 2;
  if constexpr (Net::io::in == 1) {
    if (grey)
      st::save_image(output, run(net, st::load_image<1>(input), options));
    else
      st::save_image(output, run_each_channel(net, st::load_image<3>(input), options));
  } else {
    st::save_image(output, run(net, st::load_image<3>(input), options));
  }
  std::printf("%s -> %s%s\n", input.c_str(), output.c_str(),
              Net::io::in == 1 && !grey ? "  (a grey network on a colour image: run on each channel)" : "");
}

}  // namespace

int main(int argc, char** argv) {
  std::string weights, device_name = "cpu";
  fs::path input, output;
  st::InferOptions infer;
  int threads = 0;
  CLI::App app("Denoises a picture, or all pictures of a folder.");
  app.add_option("--weights", weights, "safetensors or .pth file, or a checkpoint")->required();
  app.add_option("input", input, "picture or folder")->required();
  app.add_option("output", output, "picture (.png, .jpg, .bmp) or folder")->required();
  app.add_option("--threads", threads, "[all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--device", device_name, "cpu, cuda or cuda:N");
  device::add_precision(app, infer.precision);
  CLI11_PARSE(app, argc, argv);
  try {
    if (threads > 0) st::set_num_threads(threads);
    return device::with("dncnn_denoise", device_name, [&](st::Device device) {
      return dncnn::with_network(weights, device, [&](const auto& net) {
        if (!fs::is_directory(input)) {
          denoise(net, input, output, infer);
          return 0;
        }
        fs::create_directories(output);
        int failures = 0;
        for (const fs::path& file : st::list_images(input)) try {
            denoise(net, file, output / file.filename().replace_extension(".png"), infer);
          } catch (const st::FileError& error) {  // the others are still worth doing
            std::fprintf(stderr, "dncnn_denoise: %s\n", error.what());
            ++failures;
          }
        return failures == 0 ? 0 : 1;
      });
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dncnn_denoise: %s\n", error.what());
    return 1;
  }
}
