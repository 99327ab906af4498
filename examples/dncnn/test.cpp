// Tests a DnCNN on a folder of clean images, under the noise of the published tables.
//
//     dncnn_test --weights dncnn.safetensors --data Set12 --sigma 25
//     dncnn_test --weights out/best.safetensors --data Set12 --sigma 25 --noise philox --rounding 8bit
//
// Weights with or without batch norm, of a checkpoint or of PyTorch: the file tells.
#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <string>

#include "../common/device.hpp"
#include "datasets.hpp"
#include "weights.hpp"

int main(int argc, char** argv) {
  std::string weights, data, generator = "numpy", rounding = "none", device_name = "cpu";
  st::NoisyImagesOptions noise;
  st::InferOptions infer;
  int threads = 0;
  CLI::App app("Tests a DnCNN denoiser: PSNR and SSIM of every image, and their means.");
  app.option_defaults()->always_capture_default();
  app.add_option("--weights", weights, "safetensors or .pth file, or a checkpoint")->required();
  app.add_option("--data", data, "folder of clean images, or dead-leaves")->required();
  app.add_option("--sigma", noise.sigma, "of the noise, on the scale of 0 to 255")->check(CLI::Range(0.0, 255.0));
  app.add_option("--noise", generator, "numpy: as np.random.seed(0) for every image")
      ->check(CLI::IsMember({"numpy", "philox"}));
  app.add_option("--rounding", rounding, "of the result before it is measured")->check(CLI::IsMember({"none", "8bit"}));
  app.add_option("--threads", threads, "[all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--device", device_name, "cpu, cuda or cuda:N");
  device::add_precision(app, infer.precision);
  CLI11_PARSE(app, argc, argv);
  try {
    if (threads > 0) st::set_num_threads(threads);
    if (generator == "philox") noise.generator = st::NoiseGenerator::philox;
    std::printf("%s\n", dncnn::architecture_of(weights).str().c_str());
    const st::MetricOptions protocol{.rounding = rounding == "8bit" ? st::Rounding::to_8bit : st::Rounding::none};
    std::printf("sigma %g, %s noise; %s\n", double(noise.sigma), generator.c_str(), protocol.str().c_str());
    return device::with("dncnn_test", device_name, [&](st::Device device) {
      dncnn::with_network(weights, device, [&]<class Net>(const Net& net) {
        constexpr int channels = Net::io::in;
        const auto images = dncnn::test_data<channels>(data, noise);
        st::AverageMeter psnr, ssim;
        for (std::size_t i = 0; i < images.size(); ++i) {
          const auto [noisy, clean] = images.get(i);
          st::Infer pass(infer);
          const auto output = net(pass, noisy.to(device)).value().to(st::Device::cpu());
          psnr.add(st::psnr(output, clean, protocol));
          ssim.add(st::ssim(output, clean, protocol));
          std::printf("%s  PSNR %.2f dB  SSIM %.4f\n", std::filesystem::path(images.name(i)).filename().c_str(),
                      psnr.last(), ssim.last());
          std::fflush(stdout);
        }
        std::printf("mean  PSNR %.3f dB  SSIM %.4f  images %zu\n", psnr.mean(), ssim.mean(), images.size());
      });
      return 0;
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dncnn_test: %s\n", error.what());
    return 1;
  }
}
