// Data, starting weights and the first step of a training have the same bits with every compiler and on every
// processor. The numbers below are checked by each build of this program: g++'s in the usual tests, clang's with libc++
// and AArch64's beside it. Arithmetic of the kernels may be fused or not, so the loss is compared to within rounding.
//
//     bits            checks;    bits print    prints the table anew
//
// With -DDATA_ONLY what needs the kernels is left out, which compiles in a third of the time.
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "strata/data/data_loader.hpp"
#include "strata/data/dead_leaves.hpp"
#include "strata/data/noisy_patches.hpp"
#include "strata/data/resize.hpp"
#include "strata/nn/init.hpp"
#ifndef DATA_ONLY
#include "strata/nn/batch_norm.hpp"
#include "strata/nn/conv2d.hpp"
#include "strata/nn/linear.hpp"
#include "strata/nn/loss.hpp"
#include "strata/nn/relu.hpp"
#include "strata/nn/residual.hpp"
#include "strata/nn/sequential.hpp"
#include "strata/optim/sgd.hpp"
#endif

namespace st = strata;

namespace {

struct Expected {
  const char* what;
  std::uint64_t bits;
};
constexpr Expected table[] = {
    {"random numbers", 0x7ba812d6e6446c8d},
    {"NumPy's random numbers", 0xff39ba71d2bc1142},
    {"dead leaves, grey", 0xa63bc43c97e4ec00},
    {"dead leaves, colour", 0xfd6dd083b0f05db9},
    {"dead leaves, three times larger", 0x517223d73d2c4262},
    {"dead leaves, as they are drawn", 0x67ec57ce6d36d152},
    {"bicubic", 0xacdef1d733da4a1e},
    {"blur, mean, grey, noise", 0x9d9ecf17c2d61c60},
    {"batches of noisy patches", 0xb55c9895ef8efbca},
    {"kaiming normal", 0x1cd1d8abe65559f4},
    {"kaiming uniform", 0x4aec5024a5e9b040},
    {"xavier normal", 0xb5f4174d2b02c494},
    {"xavier uniform", 0xc3f16ca71c0f543a},
    {"orthogonal", 0x08691c8078b8e4f5},
    {"weights of new layers", 0x50b4cc5c191cd129},
};

bool printing = false;
int failures = 0, checked = 0;

class Hash {  // FNV-1a of 32-bit words
 public:
  Hash& add(std::uint32_t word) {
    value_ = (value_ ^ word) * 0x100000001b3;
    return *this;
  }
  Hash& add(float number) { return add(std::bit_cast<std::uint32_t>(number)); }
  Hash& add(double number) {
    const auto bits = std::bit_cast<std::uint64_t>(number);
    return add(std::uint32_t(bits)).add(std::uint32_t(bits >> 32));
  }
  template <int C>
  Hash& add(const st::Image<C>& image) {
    for (const float value : image.span()) add(value);
    return *this;
  }
  std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325;
};

void check(const char* what, const Hash& hash) {
  if (printing)
    return void(std::printf("    {\"%s\", 0x%016llx},\n", what, static_cast<unsigned long long>(hash.value())));
  ++checked;
  for (const Expected& expected : table)
    if (std::strcmp(expected.what, what) == 0 && expected.bits == hash.value()) return;
  ++failures;
  std::printf("other bits: %s\n", what);
}

template <class Source>
void check_images(const char* what, const Source& source) {
  Hash hash;
  for (std::size_t i = 0; i < source.size(); ++i) hash.add(source.image(i));
  check(what, hash);
}

void random_numbers() {
  st::Rng rng(5, 1, 2);
  Hash hash;
  for (int i = 0; i < 1000; ++i) {
    hash.add(rng.bits()).add(rng.uniform()).add(rng.uniform(-0.3f, 0.7f)).add(rng.below(1000));
    hash.add(rng.normal()).add(std::uint32_t(rng.coin()));
  }
  std::vector<float> values(501);
  rng.fill_normal(values, 0.1f, 0.7f);
  for (const float value : values) hash.add(value);
  check("random numbers", hash);

  st::NumpyRandom numpy(3);
  Hash normal;
  for (int i = 0; i < 1000; ++i) normal.add(numpy.uniform()).add(float(numpy.normal(0.5, 0.3)));
  check("NumPy's random numbers", normal);
}

void images() {
  check_images("dead leaves, grey", st::DeadLeaves<1>({.size = 6, .h = 40, .w = 52}));
  check_images("dead leaves, colour", st::DeadLeaves<3>({.size = 6, .h = 52, .w = 40, .seed = 3}));
  check_images("dead leaves, three times larger",
               st::DeadLeaves<3>({.size = 2, .h = 30, .w = 30, .oversampling = 3, .blur = 0}));
  check_images("dead leaves, as they are drawn", st::DeadLeaves<1>({.size = 4, .h = 60, .w = 60, .oversampling = 1}));

  const st::Image<3> photo = st::DeadLeaves<3>({.size = 1, .h = 45, .w = 60}).image(0);
  check("bicubic", Hash().add(st::resize_bicubic(photo, 17, 31)).add(st::resize_bicubic(photo, 90, 120)));
  check("blur, mean, grey, noise",
        Hash()
            .add(st::gaussian_blur(photo, 1.3f))
            .add(st::downsample(photo, 3))
            .add(st::luma(photo))
            .add(st::round_to_8bit(st::NoisyImages(st::MemoryImages<3>({photo}), {}).get(0).input)));
}

void batches() {
  const st::MemoryImages<1> leaves(st::DeadLeaves<1>({.size = 5, .h = 32, .w = 32}));
  const st::NoisyPatches patches(leaves,
                                 {.patch_size = 12, .patches_per_image = 3, .sigma_min = 5.0f, .sigma_max = 50.0f});
  const st::DataLoader loader(patches, {.batch_size = 4, .shuffle = true, .num_workers = 1, .seed = 9});
  Hash hash;
  for (int epoch = 0; epoch < 2; ++epoch)
    for (const auto& [noisy, clean] : loader.epoch(epoch)) hash.add(noisy).add(clean);
  check("batches of noisy patches", hash);
}

template <class Init>
void check_init(const char* what, const Init& init) {
  st::Parameter weight(st::Shape{6, 5, 3, 3});
  init(weight, st::Rng(4, 2, 1));
  Hash hash;
  for (const float value : weight.value().span()) hash.add(value);
  check(what, hash);
}

void starting_weights() {
  check_init("kaiming normal", st::KaimingNormal{});
  check_init("kaiming uniform", st::KaimingUniform{.gain = 0.57735027f});
  check_init("xavier normal", st::XavierNormal{});
  check_init("xavier uniform", st::XavierUniform{.gain = 0.7f});
  check_init("orthogonal", st::Orthogonal{.gain = 1.1f});
}

#ifndef DATA_ONLY
void first_step() {
  using Net = st::Residual<st::Sequential<st::Conv2d<1, 8>, st::BatchNorm2d<8>, st::ReLU, st::Conv2d<8, 1>>>;
  Net net;
  Hash weights;
  st::for_each_parameter(net, [&](const std::string&, st::Parameter& parameter) {
    for (const float value : parameter.value().span()) weights.add(value);
  });
  st::Linear<7, 3> linear;
  for (const float value : linear.weight.value().span()) weights.add(value);
  check("weights of new layers", weights);

  st::initialize(net, 1);
  const st::MemoryImages<1> leaves(st::DeadLeaves<1>({.size = 4, .h = 32, .w = 32}));
  const st::NoisyPatches patches(leaves, {.patch_size = 16, .size = 16, .sigma = 25.0f});
  const st::DataLoader loader(patches, {.batch_size = 8, .num_workers = 0});
  st::SGD sgd(net, {.lr = 0.05, .momentum = 0.9});
  std::vector<double> losses;
  for (int epoch = 0; epoch < 4; ++epoch)
    for (const auto& [noisy, clean] : loader.epoch(epoch)) {
      st::Train pass;
      const auto loss = st::MSELoss()(net(pass, noisy), clean);
      sgd.zero_grad();
      pass.backward(loss);
      sgd.step();
      losses.push_back(double(loss.item()));
    }
  if (printing) {
    std::printf("constexpr double first_loss = %.9g, last_loss = %.9g;\n", losses.front(), losses.back());
    return;
  }
  constexpr double first_loss = 0.425212771, last_loss = 0.0489132926;
  ++checked;
  if (!(std::abs(losses.front() / first_loss - 1) < 2e-6 && std::abs(losses.back() / last_loss - 1) < 1e-5)) {
    ++failures;
    std::printf("losses %.9g to %.9g, wanted %.9g to %.9g\n", losses.front(), losses.back(), first_loss, last_loss);
  }
}
#endif

}  // namespace

int main(int argc, char** argv) {
  printing = argc > 1 && std::strcmp(argv[1], "print") == 0;
  random_numbers();
  images();
  batches();
  starting_weights();
#ifndef DATA_ONLY
  first_step();
#endif
  if (!printing) std::printf("%s: %d checked, %d with other bits\n", STRATA_ISA, checked, failures);
  return failures;
}
