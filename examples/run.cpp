// A training run with everything around it: folder, log, checkpoints, TensorBoard, report. Stop it with Ctrl-C and go
// on with --resume; open experiments/run/report.html in a browser.
//
//     run --name tiny --epochs 20 --lr 2e-3
//     run --config experiments/tiny/config.toml --name again
#include <strata/strata.hpp>
#include <strata/train/run.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>

namespace st = strata;

using Net = st::Residual<st::Sequential<st::Conv2d<1, 16>, st::ReLU, st::Conv2d<16, 16>, st::ReLU, st::Conv2d<16, 1>>>;

int main(int argc, char** argv) {
  std::string name = "run";
  std::int64_t epochs = 2, batch_size = 8;
  double lr = 1e-3;
  float sigma = 25;
  bool resume = false;
  CLI::App app("Trains a small denoiser.");
  app.set_config("--config");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.add_option("--name", name);
  app.add_option("--epochs", epochs)->check(CLI::Range(1, 100000));
  app.add_option("--batch-size", batch_size)->check(CLI::Range(1, 1024));
  app.add_option("--lr", lr)->check(CLI::PositiveNumber);
  app.add_option("--sigma", sigma)->check(CLI::Range(0.0, 255.0));
  app.add_flag("--resume", resume)->configurable(false);
  CLI11_PARSE(app, argc, argv);
  try {
    const st::MemoryImages<1> images(st::DeadLeaves<1>({.size = 20}));
    const st::NoisyPatches patches(images, {.patch_size = 32, .size = 160, .sigma = sigma});
    const st::NoisyImages valid(st::MemoryImages<1>(st::DeadLeaves<1>({.size = 2, .seed = 1})), {.sigma = sigma});
    const st::DataLoader loader(patches,
                                {.batch_size = batch_size, .shuffle = true, .num_workers = 1, .drop_last = true});

    Net net;
    st::Adam adam(net, {.lr = lr});
    const st::MSELoss mse;
    st::Run run({.name = name,
                 .resume = resume,
                 .total_steps = epochs * loader.size(),
                 .log_interval = 10,
                 .metrics = {{"leaves/psnr"}}});
    run.config({{"name", name}, {"epochs", epochs}, {"batch-size", batch_size}, {"lr", lr}, {"sigma", sigma}});
    run.layers(net, 32, 32);

    st::CheckpointInfo at = run.start(net, adam);
    while (at.epoch < epochs && !run.stopping()) {
      for (const auto& [noisy, clean] : loader.epoch(at.epoch, at.batch)) {
        st::Train pass({.step = at.step});
        const auto loss = mse(net(pass, noisy), clean);
        adam.zero_grad();
        pass.backward(loss);
        adam.step();
        ++at.step;
        ++at.batch;
        run.step(at, {.lr = adam.lr(), .losses = {{"loss", loss.item()}}, .data_seconds = loader.wait_seconds()});
        if (run.stopping()) break;
      }
      if (run.stopping()) break;
      double psnr = 0;
      for (std::size_t i = 0; i < valid.size(); ++i) {
        const auto [noisy, clean] = valid.get(i);
        st::Infer pass;
        const st::Image<1> denoised = net(pass, noisy);
        psnr += st::psnr(denoised, clean) / double(valid.size());
        if (i == 0) run.picture(at, "leaves", noisy, denoised);
      }
      run.validated(at, {{"leaves/psnr", psnr}});
      ++at.epoch;
      at.batch = 0;
      run.save(at, net, adam);
    }
    run.finish(at, net, adam);
    return run.exit_status();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "run: %s\n", error.what());
    return 1;
  }
}
