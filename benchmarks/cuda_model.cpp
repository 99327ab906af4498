// What the CUDA kernels would be bound by: a model, NOT a measurement. No GPU takes part. The kernels run on the host
// (tests/cuda_on_host), where each access to memory is counted as warps make it; registers and shared memory are
// ptxas's (tests/cuda_static/kernels.tsv); peak rates and bandwidths are NVIDIA's data sheets'.
//
//     cuda_model [KERNELS_TSV]              prints the tables
//     cuda_model [KERNELS_TSV] --check      and fails where a bound that they are held to is not kept
//
// Columns. Per operation (all its kernels together), over the bytes that it has to move (every operand once): those of
// the sectors of 32 bytes that its kernels touch, each sector once for each kernel ("DRAM": what a cache cannot save),
// and those that its warps ask for, each time they do ("asked": what L1 and L2 have to give). Floating-point operations
// of the formula (2 for a multiply-add) for each byte of the two. Times: the larger of operations / peak and DRAM bytes
// / bandwidth, for a batch of 128 images of 40 x 40, that is 64 times what was counted; the floor of what a device
// could take, reached by no kernel. Per kernel: warp accesses whose sectors exceed the least possible, wavefronts of
// shared memory over those without bank conflicts, warp accesses in which a lane did not take part, and the share of a
// multiprocessor's threads that registers and shared memory leave room for.
//
// For Winograd's F(4x4, 3x3) the time counts the operations that remain, a quarter. Its planes go between kernels in
// chunks of 24 MiB, which level-2 caches of 40 MB (A100), 50 MB (H100) and 72 MB (RTX 4090) can hold; here they count
// as DRAM all the same.
//
// --check holds: 1. operations that only pass over memory (elementwise, batch norm, losses, optimisers) move at most
// 1.15 times the bytes that they have to, and their kernels ask for at most 1.15 times the least number of sectors; 2.
// no kernel of a convolution has bank conflicts; 3. a convolution of 64 channels in fp32 does more of the formula's
// operations for each byte of DRAM than the A100's and the H100's ridge; 4. every kernel that ran has its registers in
// the table.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "cuda_on_host_control.hpp"
#include "strata/cuda.hpp"

namespace {

struct Gpu {
  const char* name;
  double fp32, tf32, bf16;      // dense, float32 sums, operations per second
  double bandwidth;             // bytes per second
  int threads, shared, blocks;  // of a multiprocessor
};
// NVIDIA A100 Tensor Core GPU data sheet (SXM, 80 GB); H100 Tensor Core GPU data sheet (SXM, 80 GB; its tensor figures,
// which are with sparsity, halved); Ada GPU Architecture white paper, table of the RTX 4090. Limits of a
// multiprocessor: CUDA C++ Programming Guide, compute capabilities 8.0, 9.0, 8.9.
constexpr Gpu gpus[] = {
    {"A100", 19.5e12, 156e12, 312e12, 2.039e12, 2048, 164 << 10, 32},
    {"H100", 67e12, 494.5e12, 989.5e12, 3.35e12, 2048, 228 << 10, 32},
    {"RTX 4090", 82.6e12, 82.6e12, 165.2e12, 1.008e12, 1536, 100 << 10, 24},
};

struct Resources {
  int registers = 0, shared = 0;
};

/// Names as compilers write them differ in spaces and namespaces.
std::string plain_name(std::string name) {
  for (std::size_t at; (at = name.find("strata::")) != std::string::npos;) {
    std::size_t end = at + 8;
    while (end < name.size() && (std::isalnum(static_cast<unsigned char>(name[end])) || name[end] == '_')) ++end;
    if (name.compare(end, 2, "::") == 0) end += 2;  // the inline namespace
    if (name.compare(end, 6, "cuda::") == 0) end += 6;
    name.erase(at, end - at);
  }
  // Enumerators: "Precision::tf32" of one compiler is "(Precision)1" of the other.
  const std::pair<const char*, const char*> enumerators[] = {{"Precision::fp32", "(Precision)0"},
                                                             {"Precision::tf32", "(Precision)1"},
                                                             {"Precision::bf16", "(Precision)2"},
                                                             {"Precision::fp16", "(Precision)3"}};
  for (const auto& [word, number] : enumerators)
    for (std::size_t at; (at = name.find(word)) != std::string::npos;) name.replace(at, std::strlen(word), number);
  std::string result;
  for (const char c : name)
    if (c != ' ') result += c;
  return result;
}

std::map<std::string, Resources> read_resources(const char* path) {
  std::map<std::string, Resources> table;
  std::ifstream file(path);
  std::string line;
  std::size_t column = 0;
  while (std::getline(file, line)) {
    if (line.empty() || line[0] == '#') continue;
    std::vector<std::string> cells;
    std::istringstream words(line);
    for (std::string cell; std::getline(words, cell, '\t');) cells.push_back(cell);
    if (cells[0] == "kernel") {
      for (std::size_t i = 0; i < cells.size(); ++i)
        if (cells[i] == "sm_80") column = i;
      continue;
    }
    Resources resources;
    if (column > 0 && column < cells.size() &&
        std::sscanf(cells[column].c_str(), "%d/%d", &resources.registers, &resources.shared) == 2)
      table[plain_name(cells[0])] = resources;
  }
  return table;
}

/// The part of a multiprocessor's threads that are resident: registers are given to warps in units of 256.
double occupancy(const Gpu& gpu, unsigned threads, int registers, std::size_t shared) {
  const int warps = int(threads + 31) / 32;
  const int by_registers = registers > 0 ? 65536 / ((registers * 32 + 255) / 256 * 256 * warps) : gpu.blocks;
  const int by_shared = gpu.shared / int(shared + 1024);
  const int blocks = std::min({by_registers, by_shared, gpu.threads / (warps * 32), gpu.blocks});
  return double(blocks * warps * 32) / gpu.threads;
}

enum class Rate { fp32, tf32, bf16 };
enum class Bound { none, traffic, convolution };
struct Row {
  const char* name;
  double bytes;       // that have to be moved
  double operations;  // of the formula
  Rate rate;
  Bound bound;
  std::function<void()> run;
  double remaining = 1;  // of the operations, by the algorithm
};

double peak(const Gpu& gpu, Rate rate) {
  return rate == Rate::fp32 ? gpu.fp32 : rate == Rate::tf32 ? gpu.tf32 : gpu.bf16;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace strata;
  bool check = false;
  const char* path = nullptr;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--check") == 0)
      check = true;
    else
      path = argv[i];
  }
  const auto resources = path != nullptr ? read_resources(path) : std::map<std::string, Resources>{};
  if (!cuda_on_host::instrumented()) {
    std::puts("SKIPPED: the kernels are compiled without instrumentation, so nothing is counted");
    return 77;
  }
  Accelerator& gpu = accelerator(Device::cuda());

  constexpr std::int64_t images = 2, side = 40, pixels = images * side * side;
  constexpr int channels = 64;
  constexpr std::int64_t size = pixels * channels;
  constexpr double element = 4.0 * double(size);  // bytes of an array of activations
  const auto array = [](std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    std::uint32_t state = 1;
    for (float& value : values) value = float((state = state * 1664525u + 1013904223u) >> 8) / float(1 << 24) - 0.5f;
    return cuda_on_host::DeviceArray<float>(values);
  };
  const auto a = array(size), b = array(size), c = array(size), d = array(size);
  const auto weight = array(25 * channels * channels), row1 = array(channels), row2 = array(channels),
             row3 = array(channels), row4 = array(channels), row5 = array(channels), row6 = array(channels),
             row7 = array(channels), row8 = array(channels), one = array(1);
  const NormalisationRows rows{row1.data(), row2.data(), row3.data(), row4.data()};
  constexpr std::int64_t samples = 4096;
  constexpr int classes = 100;
  const auto logits = array(samples * classes), dlogits = array(samples * classes);
  const cuda_on_host::DeviceArray<std::int64_t> labels(std::vector<std::int64_t>(samples, 3));

  ExpressionProgram squared_difference;
  (void)squared_difference.push_leaf(a.data()), (void)squared_difference.push_leaf(b.data());
  squared_difference.push(Operation::subtract), squared_difference.push(Operation::square);
  const GradientTarget<> gradients[] = {{c.data(), false}, {nullptr, false}};
  ExpressionProgram charbonnier = squared_difference;
  charbonnier.push_constant(1e-6f), charbonnier.push(Operation::add), charbonnier.push(Operation::sqrt);
  const TensorUpdate tensor{
      .size = size, .value = a.data(), .gradient = b.data(), .state1 = c.data(), .state2 = d.data(), .step = 2};
  const TensorSpan span{size, b.data()};

  const Conv2dProblem middle{images, side, side, channels, channels, 3, 1, 1, 1},
      first{images, side, side, 1, channels, 3, 1, 1, 1}, last{images, side, side, channels, 1, 3, 1, 1, 1},
      five{images, side, side, channels, channels, 5, 1, 2, 1};
  constexpr std::int64_t patch = 40;  // noise and flips on the device, from images of which only the patches are read
  std::vector<PatchSource> patches;
  for (std::uint32_t s = 0; s < 32; ++s)
    patches.push_back({.image = a.data(), .h = 400, .w = 512, .y = 8 * (s % 4), .x = 8 * s, .orientation = int(s % 8),
                       .sigma = 0.1f, .random = {.seed = s}});
  constexpr double patch_bytes = 4.0 * 32 * patch * patch;

  const auto needed = [](const Conv2dProblem& p) {
    return 4.0 * double(p.input_size() + p.output_size() + p.weight_size());
  };
  const auto operations = [](const Conv2dProblem& p) { return 2.0 * double(p.multiply_adds()); };
  const auto forward = [&](const Conv2dProblem& p, Precision precision) {
    return [&, precision] {
      gpu.conv2d_forward(p, a.data(), weight.data(), row5.data(), b.data(), Activation::relu, false, precision);
    };
  };
  const auto input = [&](const Conv2dProblem& p, Precision precision) {
    return [&, precision] { gpu.conv2d_backward_input(p, b.data(), weight.data(), c.data(), false, precision); };
  };
  const auto weights = [&](const Conv2dProblem& p, Precision precision) {
    return [&, precision] { gpu.conv2d_backward_weight(p, a.data(), b.data(), {weight.data(), false}, {}, precision); };
  };

  const std::vector<Row> table = {
      {"relu forward", 2 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.relu_forward(size, a.data(), b.data()); }},
      {"relu backward", 3 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.relu_backward(size, a.data(), b.data(), c.data(), false); }},
      {"leaky relu forward", 2 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.leaky_relu_forward(size, a.data(), b.data(), 0.1f); }},
      {"leaky relu backward", 3 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.leaky_relu_backward(size, a.data(), b.data(), c.data(), 0.1f, false); }},
      {"prelu forward", 2 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.prelu_forward(pixels, channels, a.data(), row5.data(), channels, b.data()); }},
      {"prelu backward of x", 3 * element, double(size), Rate::fp32, Bound::traffic,
       [&] {
         gpu.prelu_backward(pixels, channels, a.data(), row5.data(), channels, b.data(), {c.data(), false}, {});
       }},
      {"prelu backward of slopes", 2 * element, 2.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.prelu_backward(pixels, channels, a.data(), row5.data(), channels, b.data(), {}, {row6.data(), false});
       }},
      {"normal noise", 2 * element, 40.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.add_normal({}, 0.1f, size, a.data(), b.data()); }},
      {"noisy patches", 3 * patch_bytes, 40.0 * patch_bytes / 4, Rate::fp32, Bound::none,
       [&] { gpu.noisy_patches(patches, patch, 1, b.data(), c.data()); }},
      {"dropout", 2 * element, double(size), Rate::fp32, Bound::traffic,
       [&] { gpu.dropout({}, 0.5, size, a.data(), b.data(), false); }},
      {"(a - b)^2", 3 * element, 2.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.expression_forward(squared_difference, size, c.data()); }},
      {"mse forward", 2 * element, 3.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.expression_sum(squared_difference, size, 1.0 / double(size), one.data()); }},
      {"mse backward", 3 * element, 3.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.expression_backward(squared_difference, size, {.factor = 0.5f}, gradients); }},
      {"charbonnier forward", 2 * element, 5.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.expression_sum(charbonnier, size, 1.0 / double(size), one.data()); }},
      {"charbonnier backward", 3 * element, 8.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.expression_backward(charbonnier, size, {.factor = 0.5f}, gradients); }},
      {"cross-entropy forward", 4.0 * samples * (classes + 2), 4.0 * samples * classes, Rate::fp32, Bound::traffic,
       [&] { gpu.cross_entropy_forward(samples, classes, logits.data(), labels.data(), 0.0, 1.0, one.data()); }},
      {"cross-entropy backward", 4.0 * samples * (2 * classes + 2), 5.0 * samples * classes, Rate::fp32, Bound::traffic,
       [&] {
         gpu.cross_entropy_backward(samples, classes, logits.data(), labels.data(), 0.0, 1.0, {}, dlogits.data(),
                                    false);
       }},
      {"batch norm statistics", element, 4.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.batch_norm_statistics(pixels, channels, a.data(), row5.data(), row6.data(), 1e-5, 0.1, row7.data(),
                                   row8.data(), nullptr, rows);
       }},
      {"batch norm + relu", 2 * element, 3.0 * size, Rate::fp32, Bound::traffic,
       [&] { gpu.batch_norm_apply(pixels, channels, a.data(), rows, b.data(), Activation::relu); }},
      {"batch norm + relu backward", 5 * element, 10.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.batch_norm_backward(pixels, channels, rows, Activation::relu, a.data(), b.data(), {row5.data(), false},
                                 {row6.data(), false}, {c.data(), false});
       }},
      {"sgd, momentum", 5 * element, 6.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.sgd_update({&tensor, 1}, {.lr = 0.1, .momentum = 0.9, .weight_decay = 1e-4});
       }},
      {"adam", 7 * element, 12.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.adam_update({&tensor, 1}, {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8});
       }},
      {"moving average of weights", 3 * element, 3.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.average_update({&tensor, 1}, 0.999);
       }},
      {"gradients scaled", 2 * element, double(size), Rate::fp32, Bound::traffic,
       [&] {
         gpu.scale({&span, 1}, 0.5);
       }},
      {"gradients clamped", 2 * element, 2.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         gpu.clamp({&span, 1}, 0.4);
       }},
      {"sum of squares", element, 2.0 * size, Rate::fp32, Bound::traffic,
       [&] {
         (void)gpu.sum_of_squares({&span, 1});
       }},
      {"conv 64-64 fp32 (Winograd)", needed(middle), operations(middle), Rate::fp32, Bound::convolution,
       forward(middle, Precision::fp32), 0.25},
      {"conv 64-64 tf32", needed(middle), operations(middle), Rate::tf32, Bound::convolution,
       forward(middle, Precision::tf32)},
      {"conv 64-64 bf16", needed(middle), operations(middle), Rate::bf16, Bound::convolution,
       forward(middle, Precision::bf16)},
      {"conv 64-64 fp16", needed(middle), operations(middle), Rate::bf16, Bound::convolution,
       forward(middle, Precision::fp16)},
      {"conv 64-64 5x5 fp32", needed(five), operations(five), Rate::fp32, Bound::convolution,
       forward(five, Precision::fp32)},
      {"conv 1-64 fp32", needed(first), operations(first), Rate::fp32, Bound::none, forward(first, Precision::fp32)},
      {"conv 64-1 fp32", needed(last), operations(last), Rate::fp32, Bound::none, forward(last, Precision::fp32)},
      {"conv 64-64 fp32, d input", needed(middle), operations(middle), Rate::fp32, Bound::convolution,
       input(middle, Precision::fp32), 0.25},
      {"conv 64-64 tf32, d input", needed(middle), operations(middle), Rate::tf32, Bound::convolution,
       input(middle, Precision::tf32)},
      {"conv 64-64 fp32, d weight", needed(middle), operations(middle), Rate::fp32, Bound::convolution,
       weights(middle, Precision::fp32), 0.25},
      {"conv 64-64 tf32, d weight", needed(middle), operations(middle), Rate::tf32, Bound::convolution,
       weights(middle, Precision::tf32)},
  };

  std::printf(
      "A model, not a measurement: counted on the host, with peaks and bandwidths of data sheets. %lld images of %lld "
      "x %lld, %d channels.\n\n",
      static_cast<long long>(images), static_cast<long long>(side), static_cast<long long>(side), channels);
  std::printf("%-28s %6s %7s %9s %10s", "operation", "DRAM", "asked", "flop/DRAM", "flop/asked");
  for (const Gpu& device : gpus) std::printf(" %13s", device.name);
  std::printf("   (us for 128 images, and what bounds)\n");

  std::vector<std::string> broken;
  std::map<std::string, cuda_on_host::Counters> kernels;
  for (const Row& row : table) {
    gpu.synchronize();
    cuda_on_host::reset_counters();
    cuda_on_host::options().count = true;
    row.run();
    gpu.synchronize();
    cuda_on_host::options().count = false;
    double moved = 0, asked = 0;
    for (const auto& kernel : cuda_on_host::counters()) {
      moved += double(kernel.load_unique_bytes + kernel.store_unique_bytes);
      asked += 32.0 * double(kernel.load_sectors + kernel.store_sectors);
      if (row.bound == Bound::convolution && kernel.shared_wavefronts > kernel.shared_ideal_wavefronts)
        broken.push_back(std::string(row.name) + ": bank conflicts in " + kernel.kernel);
      const double sectors = double(kernel.load_sectors + kernel.store_sectors);
      if (row.bound == Bound::traffic &&
          sectors > 1.15 * double(kernel.load_ideal_sectors + kernel.store_ideal_sectors))
        broken.push_back(std::string(row.name) + ": accesses that are not coalesced in " + kernel.kernel);
      kernels[kernel.kernel] = kernel;
    }
    std::printf("%-28s %6.3f %7.3f %9.2f %10.2f", row.name, moved / row.bytes, asked / row.bytes,
                row.operations / moved, row.operations / asked);
    constexpr double scale = 128.0 / images;
    for (const Gpu& device : gpus) {
      const double arithmetic = row.remaining * row.operations / peak(device, row.rate),
                   memory = moved / device.bandwidth;
      std::printf(" %8.1f %4s", scale * std::max(arithmetic, memory) * 1e6, arithmetic > memory ? "flop" : "DRAM");
    }
    std::printf("\n");
    if (row.bound == Bound::traffic && moved > 1.15 * row.bytes)
      broken.push_back(std::string(row.name) + ": moves more than 1.15 times what it has to");
    for (const Gpu& device : {gpus[0], gpus[1]})
      if (row.bound == Bound::convolution && row.rate == Rate::fp32 &&
          row.operations / moved < device.fp32 / device.bandwidth)
        broken.push_back(std::string(row.name) + ": fewer operations for each byte than the ridge of the " +
                         device.name);
  }

  std::printf("\n%-64s %7s %6s %9s %9s %9s %8s  occupancy\n", "kernel", "threads", "regs", "shared", "sectors", "banks",
              "partial");
  for (const auto& [name, kernel] : kernels) {
    const auto found = resources.find(plain_name(name));
    const int registers = found != resources.end() ? found->second.registers : 0;
    if (path != nullptr && registers == 0) broken.push_back("no registers in the table for " + plain_name(name));
    const auto ratio = [](std::uint64_t is, std::uint64_t least) {
      return least == 0 ? 1.0 : double(is) / double(least);
    };
    const std::uint64_t accesses = kernel.load_accesses + kernel.store_accesses + kernel.shared_accesses;
    std::printf(
        "%-64.64s %7u %6s %9zu %9.3f %9.3f %7.1f%% ", plain_name(name).c_str(), kernel.block_threads,
        registers > 0 ? std::to_string(registers).c_str() : "-", kernel.shared_bytes,
        ratio(kernel.load_sectors + kernel.store_sectors, kernel.load_ideal_sectors + kernel.store_ideal_sectors),
        ratio(kernel.shared_wavefronts, kernel.shared_ideal_wavefronts),
        100.0 * double(kernel.partial_accesses) / double(std::max<std::uint64_t>(accesses, 1)));
    for (const Gpu& device : gpus) {
      if (registers > 0)
        std::printf(" %s %.0f%%", device.name,
                    100 * occupancy(device, kernel.block_threads, registers, kernel.shared_bytes));
    }
    std::printf("\n");
  }
  std::printf("\nRidges (fp32 operations for each byte of DRAM): A100 %.1f, H100 %.1f, RTX 4090 %.1f.\n",
              gpus[0].fp32 / gpus[0].bandwidth, gpus[1].fp32 / gpus[1].bandwidth, gpus[2].fp32 / gpus[2].bandwidth);
  for (const std::string& problem : broken) std::printf("not kept: %s\n", problem.c_str());
  return check && !broken.empty() ? 1 : 0;
}
