// The real cuDNN makes plans for described devices, without a device or a driver: it accepts the convolutions that
// Strata hands it, for sm_75, sm_80 and sm_90. Plans made so are not run, and nothing here says how fast they are. The
// graphs and plans come from the code that the engine uses (cuda/cudnn_graph.cuh, cuda/cudnn_plan.cuh).
//
// The environment variable STRATA_CUDNN_LIBRARY names the library; without it the loader looks for libcudnn.so.9. Where
// there is none the test is skipped.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cudnn_plans/described_devices.hpp"
#include "strata/cuda/cudnn_plan.cuh"

namespace st = strata;
using namespace strata::cuda;
using strata_test::DescribedDevice;

namespace {

std::optional<CudnnLibrary> library;

constexpr st::Precision precisions[] = {st::Precision::fp32, st::Precision::tf32, st::Precision::fp16,
                                        st::Precision::bf16};

/// The three convolutions of DnCNN-17 on the published recipe's batches.
constexpr st::Conv2dProblem first{.n = 128, .h = 40, .w = 40, .in = 1, .out = 64};
constexpr st::Conv2dProblem middle{.n = 128, .h = 40, .w = 40, .in = 64, .out = 64};
constexpr st::Conv2dProblem last{.n = 128, .h = 40, .w = 40, .in = 64, .out = 1};

std::vector<CudnnPlan> plans(const DescribedDevice& device, const CudnnConvolution& convolution, std::size_t wanted = 1,
                             std::size_t workspace = std::size_t{1} << 30) {
  const CudnnDevice described(*library, device.json());
  return make_plans(convolution_graph(*library, convolution), described, {convolution.precision, true, workspace},
                    wanted);
}

std::set<std::int64_t> engines(const DescribedDevice& device, const CudnnConvolution& convolution) {
  std::set<std::int64_t> numbers;
  for (const CudnnPlan& plan : plans(device, convolution, 1000)) numbers.insert(plan.engine());
  return numbers;
}

}  // namespace

TEST_CASE("cuDNN makes a deterministic plan for every convolution of DnCNN-17") {
  int made = 0;
  for (const DescribedDevice& device : {strata_test::t4, strata_test::a100, strata_test::h100})
    for (const st::Precision precision : precisions) {
      if (precision == st::Precision::bf16 && device.compute_capability < 80) continue;  // refused: below
      for (const st::Conv2dProblem& problem : {first, middle, last}) {
        std::vector<CudnnConvolution> wanted{
            {.problem = problem, .pass = ConvolutionPass::forward, .precision = precision},
            {.problem = problem,
             .pass = ConvolutionPass::forward,
             .precision = precision,
             .bias = true,
             .activation = st::Activation::none},
            {.problem = problem,
             .pass = ConvolutionPass::forward,
             .precision = precision,
             .bias = true,
             .activation = st::Activation::relu}};
        for (const ConvolutionPass pass : {ConvolutionPass::backward_input, ConvolutionPass::backward_weight})
          for (const bool accumulate : {false, true})
            wanted.push_back({.problem = problem, .pass = pass, .precision = precision, .accumulate = accumulate});
        for (const CudnnConvolution& convolution : wanted) {
          CAPTURE(device.name);
          CAPTURE(convolution.str());
          const auto found = plans(device, convolution);
          REQUIRE(found.size() == 1);
          std::printf("sm_%d  %s: engine %lld, workspace %.1f MiB\n", device.compute_capability,
                      convolution.str().c_str(), static_cast<long long>(found[0].engine()),
                      double(found[0].workspace_bytes()) / (1 << 20));
          ++made;
        }
      }
    }
  CHECK(made == (3 * 4 - 1) * 3 * 7);
}

TEST_CASE("the precision decides which engines may serve") {
  for (const ConvolutionPass pass :
       {ConvolutionPass::forward, ConvolutionPass::backward_input, ConvolutionPass::backward_weight}) {
    const auto strict = engines(strata_test::a100, {.problem = middle, .pass = pass, .precision = st::Precision::fp32});
    const auto tf32 = engines(strata_test::a100, {.problem = middle, .pass = pass, .precision = st::Precision::tf32});
    CHECK(strict.size() < tf32.size());
    for (const std::int64_t engine : strict) CHECK(tf32.count(engine) == 1);
  }
}

TEST_CASE("what is no convolution, or not one for the device, is refused") {
  CHECK_THROWS_AS(plans(strata_test::t4, {.problem = middle, .precision = st::Precision::bf16}), CudnnError);
  st::Conv2dProblem problem = middle;
  problem.kernel = 50;  // larger than the padded image
  CHECK_THROWS_AS(plans(strata_test::a100, {.problem = problem}), CudnnError);
  problem = middle;
  problem.in = 0;
  CHECK_THROWS_AS(plans(strata_test::a100, {.problem = problem}), CudnnError);
  problem = middle;
  problem.padding = -1;
  CHECK_THROWS_AS(plans(strata_test::a100, {.problem = problem}), CudnnError);
  CHECK_THROWS_AS(plans(strata_test::a100, {.problem = middle, .bias = true, .accumulate = true}), st::ValueError);
  REQUIRE(plans(strata_test::a100, {.problem = middle})[0].workspace_bytes() > 0);
  CHECK(plans(strata_test::a100, {.problem = middle}, 1, 0)[0].workspace_bytes() == 0);

  DescribedDevice kepler = strata_test::a100;
  kepler.compute_capability = 30;
  CHECK_THROWS_AS(plans(kepler, {.problem = middle}), CudnnError);
  std::string json = strata_test::a100.json();
  json.replace(json.find("warpSize"), 8, "wrapSize");
  CHECK_THROWS_AS(CudnnDevice(*library, json), CudnnError);
  CHECK_THROWS_AS(CudnnDevice(*library, "no json"), CudnnError);
}

TEST_CASE("the key is the whole problem") {
  const CudnnConvolution key{.problem = middle};
  CudnnConvolution other = key;
  CHECK(other == key);
  other.problem.dilation = 2;
  CHECK(other != key);
  other = key;
  other.precision = st::Precision::tf32;
  CHECK(other != key);
  other = key;
  other.alignment = 4;
  CHECK(other != key);
  CHECK(plans(strata_test::a100, other).size() == 1);  // and addresses of any alignment have a plan
}

// Engines for these are compiled when the plan is made, which asks the driver to load the code.
TEST_CASE("batch normalisation: cuDNN accepts the graphs; plans need a driver") {
  const CudnnDevice device(*library, strata_test::a100.json());
  for (const auto pass :
       {CudnnBatchNorm::Pass::training, CudnnBatchNorm::Pass::inference, CudnnBatchNorm::Pass::backward})
    for (const st::Precision precision : {st::Precision::fp32, st::Precision::fp16, st::Precision::bf16}) {
      const CudnnBatchNorm batch_norm{.n = 128, .h = 40, .w = 40, .channels = 64, .pass = pass, .precision = precision};
      CAPTURE(batch_norm.str());
      const CudnnGraph graph = batch_norm_graph(*library, batch_norm);  // throws when refused
      try {
        const auto made = make_plans(graph, device, {precision}, 1);
        std::printf("%s: engine %lld\n", batch_norm.str().c_str(), static_cast<long long>(made[0].engine()));
      } catch (const CudnnError& error) {
        CHECK_MESSAGE(std::string(error.what()).find("libcuda == nullptr") != std::string::npos, error.what());
        std::printf("%s: the graph is accepted; a plan needs the driver, which is not here\n",
                    batch_norm.str().c_str());
      }
    }
  const CudnnBatchNorm wrong{.n = 128, .h = 40, .w = 40, .channels = 0};
  CHECK_THROWS_AS(batch_norm_graph(*library, wrong), st::ShapeError);
}

int main(int argc, char** argv) {
  const char* path = std::getenv("STRATA_CUDNN_LIBRARY");
  try {
    library.emplace(path != nullptr && *path != '\0' ? std::string(path) : CudnnLibrary::default_name());
  } catch (const st::DeviceError& error) {
    std::printf("SKIPPED: %s\n", error.what());
    return 77;
  }
  std::printf("cuDNN %s, devices described from data sheets, nothing is run\n", library->version().c_str());
  return doctest::Context(argc, argv).run();
}
