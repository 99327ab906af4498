// Denoises pictures.
//
//     dncnn_denoise --weights dncnn.safetensors noisy.png clean.png
//     dncnn_denoise --weights dncnn.safetensors noisy_folder clean_folder
#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../common/device.hpp"
#include "../common/outputs.hpp"
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

/// The picture's colours without its alpha; grey ones three times for C = 3.
template <int C>
st::Image<C> colours_of(const st::RawImage& picture) {
  st::Image<C> image(1, picture.h, picture.w);
  std::vector<float> row(std::size_t(picture.w * picture.channels));
  for (std::int64_t y = 0; y < picture.h; ++y) {
    picture.read_row(y, row.data());
    for (std::int64_t x = 0; x < picture.w; ++x)
      for (int c = 0; c < C; ++c)
        image(0, c, y, x) = row[std::size_t(x * picture.channels + (picture.channels >= 3 ? c : 0))];
  }
  return image;
}

/// Puts them back, to its own kind of samples. Of a picture whose colours are shades of grey they stay so.
template <int C>
void put_colours(st::RawImage& picture, const st::Image<C>& image, bool grey) {
  std::vector<float> row(std::size_t(picture.w * picture.channels));
  for (std::int64_t y = 0; y < picture.h; ++y) {
    picture.read_row(y, row.data());  // for its alpha
    for (std::int64_t x = 0; x < picture.w; ++x)
      for (int c = 0; c < (picture.channels >= 3 ? 3 : 1); ++c) {
        float value = image(0, C == 1 ? 0 : c, y, x);
        if constexpr (C == 3)
          if (grey) value = (image(0, 0, y, x) + image(0, 1, y, x) + image(0, 2, y, x)) / 3;
        row[std::size_t(x * picture.channels + c)] = value;
      }
    picture.write_row(y, row.data());
  }
}

template <class Net>
void denoise(const Net& net, const fs::path& input, const fs::path& output, const st::InferOptions& options) {
  outputs::check_place(output, /*overwrite=*/true);
  const st::ImageInfo info = st::read_image_info(input);
  if (st::detail::format_of_name(output) != st::ImageFormat::png && (info.bits != 8 || info.has_alpha()))
    throw st::FileError(st::concat(output.string(), ": the picture has ", info.bits, " bits and ", info.channels,
                                   " channels, which only a .png holds"));
  st::RawImage picture = st::load_raw_image(input);
  const bool grey = st::is_grey(picture);
  std::string how;
  for (const std::string& name : st::left_out(output, picture)) how += (how.empty() ? "  without its " : ", ") + name;
  if (Net::io::in == 1 && picture.channels >= 3) how += "  (a grey network on a colour image: run on each channel)";
  st::spread_visible_colours(picture);
  try {
    if constexpr (Net::io::in == 1) {
      if (picture.channels <= 2)
        put_colours(picture, run(net, colours_of<1>(picture), options), grey);
      else
        put_colours(picture, run_each_channel(net, colours_of<3>(picture), options), grey);
    } else {
      put_colours(picture, run(net, colours_of<3>(picture), options), grey);
    }
  } catch (const st::NumericError&) {
    throw st::FileError(
        st::concat(input.string(), ": the network makes values of it that are not finite; wanted other weights"));
  }
  st::save_raw_image(output, std::move(picture));
  std::printf("%s -> %s%s\n", input.c_str(), output.c_str(), how.c_str());
}

/// The pictures to do, each with its place, checked before any work.
std::vector<outputs::Output> plan(const fs::path& input, const fs::path& output, const fs::path& weights) {
  std::vector<outputs::Output> all;
  if (outputs::is_folder(input)) {
    const std::vector<fs::path> files = st::list_images(input);
    outputs::make_folder(output, {input});
    for (const fs::path& file : files) all.push_back({file, output / file.filename().replace_extension(".png")});
  } else {
    (void)st::read_image_info(input);  // before the weights are loaded for nothing
    outputs::check_place(output, /*overwrite=*/true);
    all.push_back({input, output});
  }
  std::vector<fs::path> read{weights};
  for (const outputs::Output& one : all) read.push_back(one.input);
  outputs::check_apart(read, all);
  return all;
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
      const std::vector<outputs::Output> pictures = plan(input, output, weights);
      return dncnn::with_network(weights, device, [&](const auto& net) {
        if (!outputs::is_folder(input)) {
          denoise(net, pictures.front().input, pictures.front().path, infer);
          return 0;
        }
        int failures = 0;
        for (const outputs::Output& picture : pictures) try {
            denoise(net, picture.input, picture.path, infer);
          } catch (const std::exception& error) {  // the others are still worth doing
            std::fprintf(stderr, "dncnn_denoise: %s\n", error.what());
            ++failures;
          }
        if (failures > 0) std::fprintf(stderr, "dncnn_denoise: %d of %zu pictures failed\n", failures, pictures.size());
        return failures == 0 ? 0 : 1;
      });
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dncnn_denoise: %s\n", error.what());
    return 1;
  }
}
