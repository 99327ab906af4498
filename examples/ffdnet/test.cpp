// Tests a denoiser for all noise levels on a folder of clean images, under the noise of the published tables.
//
//     ffdnet_test --weights models/denoise_grey.safetensors --data Set12 --sigma 15,25,50
//     ffdnet_test --weights models/denoise_colour.safetensors --channels 3 --data photos --sigma 25 --ensemble
#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../common/device.hpp"
#include "criterion.hpp"
#include "networks.hpp"

namespace st = strata;

namespace {

struct Options {
  std::string weights, data, rounding = "none", device = "cpu";
  std::vector<float> sigmas{25};
  int channels = 1, threads = 0;
  bool ensemble = false;
};

template <int Channels>
void test(const Options& options, st::Device device) {
  ffdnet::FFDNet<Channels> trained;
  for (const std::string& note : st::load_weights(options.weights, trained).notes)
    std::fprintf(stderr, "%s\n", note.c_str());
  auto net = st::fold(trained);
  st::to(net, device);
  const st::MetricOptions protocol{.rounding = options.rounding == "8bit" ? st::Rounding::to_8bit : st::Rounding::none};
  const auto images = sources::measurable(sources::clean_images<Channels>(options.data, 8, /*seed=*/2));
  std::printf("%lld parameters, %lld multiply-adds per pixel; NumPy's noise, seed 0 for each image; %s\n",
              static_cast<long long>(st::parameter_count<ffdnet::FFDNet<Channels>>),
              static_cast<long long>(st::multiply_adds<ffdnet::FFDNet<Channels>>(512, 512) / (512 * 512)),
              protocol.str().c_str());
  for (const float sigma : options.sigmas) {
    const st::NoisyImages<Channels> data(images, {.sigma = sigma});
    const auto run = [&](const st::Image<Channels>& noisy) {
      return ffdnet::denoise(std::as_const(net), noisy, sigma);
    };
    const training::Score score = ffdnet::evaluate<Channels>(
        [&](const st::Image<Channels>& noisy) { return options.ensemble ? st::self_ensemble(noisy, run) : run(noisy); },
        data, protocol,
        [&](std::size_t i, double psnr, double ssim) {
          std::printf("%s  PSNR %.2f dB  SSIM %.4f\n", std::filesystem::path(data.name(i)).filename().c_str(), psnr,
                      ssim);
          std::fflush(stdout);
        });
    std::printf("sigma %g  mean  PSNR %.3f dB  SSIM %.4f  noisy %.2f dB  images %zu\n", double(sigma), score.psnr,
                score.ssim, score.baseline, data.size());
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Tests a denoiser: PSNR and SSIM of every image, and their means.");
  app.option_defaults()->always_capture_default();
  app.add_option("--weights", options.weights, "safetensors file, or a checkpoint")->required();
  app.add_option("--data", options.data, "folder of clean images, or dead-leaves")->required();
  app.add_option("--sigma", options.sigmas, "of the noise, on the scale of 0 to 255")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 255.0));
  app.add_option("--channels", options.channels, "1 for grey, 3 for colour")->check(CLI::IsMember({1, 3}));
  app.add_option("--rounding", options.rounding, "of the result before it is measured")
      ->check(CLI::IsMember({"none", "8bit"}));
  app.add_flag("--ensemble", options.ensemble, "mean of eight orientations");
  app.add_option("--threads", options.threads, "[all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.threads > 0) st::set_num_threads(options.threads);
    return device::with("ffdnet_test", options.device, [&](st::Device device) {
      options.channels == 1 ? test<1>(options, device) : test<3>(options, device);
      return 0;
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ffdnet_test: %s\n", error.what());
    return 1;
  }
}
