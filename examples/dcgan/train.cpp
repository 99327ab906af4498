// Trains a DCGAN: a network that makes images of 64 x 64 from noise, against one that tells them from real ones.
//
//     dcgan_train --images faces --epochs 25                        # a folder of pictures: their middle squares
//     dcgan_train --epochs 5                                        # draws them; no data needed
//     dcgan_train --epochs 50 --resume checkpoint.safetensors       # goes on where that was written
//
// After each epoch it leaves generator.safetensors, checkpoint.safetensors and samples.png: 64 images made from the
// same noise each time, so that one sees them become better.
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>

#include "../common/command_line.hpp"
#include "../common/console.hpp"
#include "../common/device.hpp"
#include "strata/data/augment.hpp"
#include "strata/networks/dcgan.hpp"
#include "strata/nn/losses/adversarial.hpp"
#include "strata/strata.hpp"

namespace st = strata;
namespace fs = std::filesystem;

namespace {

constexpr int latent = 100, side = 64;
using Generator = st::networks::DCGANGenerator<latent>;
using Discriminator = st::networks::DCGANDiscriminator<>;
/// Both, as one checkpoint holds them.
struct Networks {
  Generator generator;
  Discriminator discriminator;
  static constexpr void visit(auto& self, auto&& f) {
    f("generator", self.generator);
    f("discriminator", self.discriminator);
  }
};

struct Options {
  fs::path images, output = ".", resume;
  std::string device = "cpu";
  std::int64_t count = 4000;
  int epochs = 25, batch_size = 64, num_workers = 1, threads = 0;
  double lr = 2e-4, beta1 = 0.5;
  std::uint64_t seed = 0;
};

/// Drawn faces: a disc of some colour on a ground of another, two eyes and a mouth that smiles or does not.
struct DrawnFaces {
  std::size_t count;
  std::uint64_t seed;

  std::size_t size() const { return count; }
  st::LabelledSample<3> get(std::size_t index, st::Rng&) const {
    st::Rng rng(seed, std::uint32_t(index));
    float ground[3], skin[3];
    for (float& c : ground) c = rng.uniform(0, 0.5f);
    for (float& c : skin) c = rng.uniform(0.5f, 1);
    const float cy = rng.uniform(28, 36), cx = rng.uniform(28, 36), radius = rng.uniform(18, 26);
    const float bend = rng.uniform(-0.25f, 0.25f);
    st::Image<3> image(1, side, side);
    for (int y = 0; y < side; ++y)
      for (int x = 0; x < side; ++x) {
        const float v = (float(y) - cy) / radius, u = (float(x) - cx) / radius;
        const bool eye = std::hypot(std::abs(u) - 0.38f, v + 0.25f) < 0.13f;
        const bool mouth = std::abs(u) < 0.45f && std::abs(v - 0.45f + bend * (u * u * 6 - 0.6f)) < 0.08f;
        const float face = std::clamp((1 - std::hypot(u, v)) * radius, 0.0f, 1.0f);  // its edge is soft
        for (int c = 0; c < 3; ++c)
          image(0, c, y, x) = eye || mouth ? 0.05f : ground[c] + face * (skin[c] - ground[c]);
      }
    return {image, 0};
  }
};

/// The middle squares of a folder's pictures. All are of one class, which nobody looks at.
struct Squares {
  st::ImageFolder<3> folder;

  std::size_t size() const { return folder.size(); }
  st::LabelledSample<3> get(std::size_t index, st::Rng&) const {
    const auto image = folder.image(index);
    const std::int64_t size = std::min(image.h(), image.w());
    const auto square = st::crop(image, (image.h() - size) / 2, (image.w() - size) / 2, size, size);
    return {st::resize(square, side, side), 0};
  }
};

/// `n` draws of the generator's input.
st::Image<latent> noise(std::int64_t n, st::Rng rng) {
  st::Image<latent> z(n, 1, 1);
  rng.fill_normal(z.span(), 0, 1);
  return z;
}

/// Eight rows of eight images, which the generator makes of noise that is the same each time.
void save_samples(const fs::path& path, const Generator& generator, std::uint64_t seed) {
  st::Infer pass;
  const auto z = noise(64, st::Rng(seed, 0x5A5A));
  const st::Image<3> made = generator(pass, z.to(st::device_of(generator))).value().to(st::Device::cpu());
  st::Image<3> sheet(1, 8 * side, 8 * side);
  for (std::int64_t n = 0; n < 64; ++n)
    for (std::int64_t y = 0; y < side; ++y)
      for (std::int64_t x = 0; x < side; ++x)
        for (int c = 0; c < 3; ++c) sheet(0, c, n / 8 * side + y, n % 8 * side + x) = 0.5f + 0.5f * made(n, c, y, x);
  st::save_image(path, sheet);
}

template <class Data>
int train(const Options& options, st::Device device, const Data& images) {
  Networks networks;
  auto& [generator, discriminator] = networks;
  st::initialize(networks, options.seed, st::Normal{.std = 0.02f});
  st::to(networks, device);
  st::Adam of_generator(generator, {.lr = options.lr, .betas = {options.beta1, 0.999}});
  st::Adam of_discriminator(discriminator, {.lr = options.lr, .betas = {options.beta1, 0.999}});
  st::CheckpointInfo at;
  if (!options.resume.empty()) at = st::load_checkpoint(options.resume, networks, of_generator, of_discriminator);

  const st::Map scaled(images, [](st::LabelledSample<3> sample, st::Rng&) {
    for (float& x : sample.input.span()) x = 2 * x - 1;
    return sample;
  });
  const st::DataLoader loader(scaled, {.batch_size = options.batch_size,
                                        .shuffle = true,
                                        .num_workers = options.num_workers,
                                        .drop_last = true,
                                        .seed = options.seed});
  std::printf("%lld and %lld parameters; %zu images\n", static_cast<long long>(st::parameter_count<Generator>),
              static_cast<long long>(st::parameter_count<Discriminator>), images.size());
  const st::GANLoss gan;
  const console::Interrupt interrupt;
  for (; at.epoch < options.epochs && !interrupt.requested(); ++at.epoch) {
    const console::Stopwatch watch;
    console::Progress progress(st::concat("epoch ", at.epoch + 1), std::int64_t(loader.size()));
    st::AverageMeter of_real, of_made;
    std::int64_t batch = 0;
    for (const auto& [image, label] : loader.epoch(at.epoch)) {
      const auto real = image.to(device);
      const auto z = noise(real.n(), st::Rng(options.seed, 1, std::uint32_t(at.step++))).to(device);

      // The generator runs once: the discriminator's step sees the image, without the way back into the generator.
      st::Train pass;
      const auto made = generator(pass, z);
      {
        st::Train own;
        const auto logits_real = discriminator(own, real);
        const auto logits_made = discriminator(own, made.value());
        const auto loss = gan.discriminator(logits_real, logits_made);
        of_discriminator.zero_grad();
        own.backward(loss);
        of_real.add(loss.item());  // on a device this is where a loss that is no number is told: before the step
        of_discriminator.step();
      }
      const auto loss = gan.generator(discriminator(pass, made));
      of_generator.zero_grad();
      pass.backward(loss);
      of_made.add(loss.item());
      of_generator.step();
      progress.update(++batch, st::concat("D ", of_real.mean(), "  G ", of_made.mean()));
      if (interrupt.requested()) return progress.finish(), interrupt.exit_status();
    }
    progress.finish();
    std::printf("epoch %d  D %.4f  G %.4f  %s\n", int(at.epoch) + 1, of_real.mean(), of_made.mean(),
                console::clock_text(watch.seconds()).c_str());
    std::fflush(stdout);
    save_samples(options.output / "samples.png", generator, options.seed);
    st::save_weights(options.output / "generator.safetensors", generator, {{"network", "DCGAN, 100 to 3 x 64 x 64"}});
    st::CheckpointInfo next = at;
    ++next.epoch;
    st::save_checkpoint(options.output / "checkpoint.safetensors", next, networks, of_generator, of_discriminator);
  }
  return 0;
}

int run(const Options& options, st::Device device) {
  if (options.images.empty()) return train(options, device, DrawnFaces{std::size_t(options.count), 1});
  return train(options, device, Squares{st::ImageFolder<3>(options.images)});
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Trains a DCGAN on pictures, or on faces that it draws.");
  app.option_defaults()->always_capture_default();
  app.add_option("--images", options.images, "folder of pictures; without it they are drawn");
  app.add_option("--count", options.count, "how many are drawn")->check(CLI::Range(64, 10000000));
  app.add_option("--output", options.output, "folder for the results")->check(CLI::ExistingDirectory);
  app.add_option("--resume", options.resume, "checkpoint to go on from")->check(CLI::ExistingFile);
  app.add_option("--epochs", options.epochs)->check(CLI::Range(1, 100000));
  app.add_option("--batch-size", options.batch_size)->check(CLI::Range(2, 65536));
  app.add_option("--lr", options.lr, "learning rate of both")->check(CLI::PositiveNumber);
  app.add_option("--beta1", options.beta1, "Adam's")->check(CLI::Range(0.0, 0.999));
  app.add_option("--num-workers,--workers,-j", options.num_workers, "threads that make batches")
      ->check(CLI::Range(0, 256));
  app.add_option("--threads", options.threads, "threads that compute [all it may use]")->check(CLI::Range(0, 1024));
  app.add_option("--seed", options.seed);
  app.add_option("--device", options.device, "cpu, cuda or cuda:N");
  if (const auto status = command_line::parse(app, argc, argv)) return *status;
  try {
    if (options.threads > 0) st::set_num_threads(options.threads);
    return device::with("dcgan_train", options.device, [&](st::Device device) { return run(options, device); });
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dcgan_train: %s\n", error.what());
    return 1;
  }
}
