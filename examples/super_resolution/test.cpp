// Tests an upscaler on a folder of large images, which are made small by MATLAB's bicubic, and rounded to 8 bits,
// first.
//
//     super_resolution_test --weights models/upscale_x2.safetensors --data Set12
#include <CLI/CLI.hpp>

#include <cstdio>
#include <filesystem>
#include <string>
#include <utility>

#include "../common/device.hpp"
#include "criterion.hpp"
#include "networks.hpp"

namespace st = strata;

namespace {

void test(const std::string& weights, const std::string& data, bool ensemble, st::Device device) {
  using Net = super_resolution::SuperResolution<>;
  Net trained;
  for (const std::string& note : st::load_weights(weights, trained).notes) std::fprintf(stderr, "%s\n", note.c_str());
  auto net = st::fold(trained);
  st::to(net, device);
  constexpr int factor = super_resolution::factor;
  const super_resolution::TestPairs pairs(data, factor);
  std::printf(
      "%lld parameters, %lld multiply-adds per pixel of the small image; small images in 8 bits; colour: %s; grey: "
      "%s\n",
      static_cast<long long>(st::parameter_count<Net>),
      static_cast<long long>(st::multiply_adds<Net>(512, 512) / (512 * 512)),
      super_resolution::protocol(true, factor).str().c_str(), super_resolution::protocol(false, factor).str().c_str());
  const auto run = [&](const st::Image<1>& small) { return super_resolution::upscale(std::as_const(net), small); };
  const training::Score score = super_resolution::evaluate(
      [&](const st::Image<1>& small) { return ensemble ? st::self_ensemble(small, run) : run(small); }, pairs, factor,
      [&](std::size_t i, double psnr, double ssim, double bicubic) {
        std::printf("%s  PSNR %.2f dB  SSIM %.4f  bicubic %.2f dB\n",
                    std::filesystem::path(pairs.name(i)).filename().c_str(), psnr, ssim, bicubic);
        std::fflush(stdout);
      });
  std::printf("mean  PSNR %.3f dB  SSIM %.4f  bicubic %.3f dB  images %zu\n", score.psnr, score.ssim, score.baseline,
              pairs.size());
}

}  // namespace

int main(int argc, char** argv) {
  std::string weights, data, device_name = "cpu";
  bool ensemble = false;
  int threads = 0;
  CLI::App app(
      "Tests an upscaler: PSNR and SSIM of luma of every image, and their means, beside bicubic interpolation.");
  app.option_defaults()->always_capture_default();
  app.add_option("--weights", weights, "safetensors file, or a checkpoint")->required();
  app.add_option("--data", data, "folder of large images, or dead-leaves")->required();
  app.add_flag("--ensemble", ensemble, "mean of eight orientations");
  app.add_option("--threads", threads, "[all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--device", device_name, "cpu, cuda or cuda:N");
  CLI11_PARSE(app, argc, argv);
  try {
    if (threads > 0) st::set_num_threads(threads);
    return device::with("super_resolution_test", device_name, [&](st::Device device) {
      test(weights, data, ensemble, device);
      return 0;
    });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "super_resolution_test: %s\n", error.what());
    return 1;
  }
}
