// An optimiser's state by name, from PyTorch (tests/golden/optimizer_files.py) and back.
#include "strata/io/optimizer_file.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "optim/optim_test_net.hpp"
#include "strata/optim/adam.hpp"
#include "strata/optim/rmsprop.hpp"
#include "strata/optim/sgd.hpp"
#include "temporary_folder.hpp"

namespace st = strata;
using optim_test::Net;

namespace {

const std::filesystem::path golden = std::filesystem::path(STRATA_TESTS_FOLDER) / "golden";

std::map<std::string, std::vector<float>> numbers(const std::filesystem::path& path) {
  const st::WeightsFile file(path);
  std::map<std::string, std::vector<float>> all;
  for (const st::TensorInfo& tensor : file.tensors()) all[tensor.name] = st::to_nchw(file.read<float>(tensor));
  return all;
}

void check_step(auto make, const std::string& kind, const std::string& ending) {
  CAPTURE(kind);
  const auto weights = numbers(golden / ("optimizer_" + kind + "_weights.safetensors"));
  Net net;
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter& p) {
    const auto& from = weights.at("before." + name);
    std::copy(from.begin(), from.end(), p.value().data());
  });
  auto optimizer = make(net);
  st::load_optimizer(golden / ("optimizer_" + kind + ending), optimizer);

  // What is written is what was read.
  const strata_test::TemporaryFolder folder;
  st::save_optimizer(folder / "state.safetensors", optimizer);
  auto read = numbers(golden / ("optimizer_" + kind + ending)), written = numbers(folder / "state.safetensors");
  if (kind == "rmsprop") std::erase_if(read, [](const auto& entry) { return entry.first.ends_with(".step"); });
  CHECK(read == written);

  optim_test::set_gradients<float>(net, 3);
  optimizer.step();
  st::for_each_parameter(net, [&](const std::string& name, st::Parameter& p) {
    const auto& wanted = weights.at("after." + name);
    for (std::size_t i = 0; i < wanted.size(); ++i)
      CHECK(std::abs(std::as_const(p).value().data()[i] - wanted[i]) <= 4e-7f * (1 + std::abs(wanted[i])));
  });
}

auto make_adamw(Net& net) { return st::AdamW(net, {.lr = 0.1, .weight_decay = 0.05}); }

}  // namespace

TEST_CASE("an optimiser goes on from PyTorch's state, by name") {
  check_step([](Net& net) { return st::SGD(net, {.lr = 0.1, .momentum = 0.9}); }, "sgd", ".safetensors");
  check_step(make_adamw, "adamw", ".safetensors");
  check_step(make_adamw, "adamw", ".pth");
  check_step([](Net& net) { return st::RMSprop(net, {.lr = 0.1, .momentum = 0.5, .centered = true}); }, "rmsprop",
             ".safetensors");
}

TEST_CASE("groups make no difference to a file, and what has no state yet begins anew") {
  const strata_test::TemporaryFolder folder;
  Net net;
  st::AdamW adam(net, {.lr = 0.1}, {{.when = st::named("bias"), .frozen = true}});
  optim_test::set_gradients<float>(net, 0);
  adam.step();
  st::save_optimizer(folder / "state.safetensors", adam);
  CHECK(numbers(folder / "state.safetensors").size() == 3);  // of the weight alone
  Net other;
  st::AdamW fresh(other, {.lr = 0.2});
  st::load_optimizer(folder / "state.safetensors", fresh);
  CHECK(fresh.lr() == 0.2);
  optim_test::set_gradients<float>(other, 1);
  fresh.step();
  st::save_optimizer(folder / "again.safetensors", fresh);
  auto again = numbers(folder / "again.safetensors");
  CHECK(again.at("weight.step") == std::vector<float>{2});
  CHECK(again.at("bias.step") == std::vector<float>{1});
}

TEST_CASE("a state that does not fit changes nothing") {
  const strata_test::TemporaryFolder folder;
  const auto path = folder / "state.safetensors";
  Net net;
  auto adam = make_adamw(net);
  optim_test::set_gradients<float>(net, 0);
  adam.step();
  st::save_optimizer(folder / "before.safetensors", adam);
  const auto refused = [&](const std::map<std::string, st::AnyTensor>& tensors, const char* text) {
    std::vector<st::NamedTensor> named;
    for (const auto& [name, tensor] : tensors) named.push_back({name, &tensor});
    st::write_safetensors(path, named);
    CHECK_THROWS_WITH_AS(st::load_optimizer(path, adam), doctest::Contains(text), st::FileError);
    st::save_optimizer(folder / "after.safetensors", adam);
    CHECK(numbers(folder / "before.safetensors") == numbers(folder / "after.safetensors"));
  };
  const auto full = [](const st::Shape& shape, float value) {
    return st::AnyTensor(st::Tensor<float>::full(shape, value));
  };
  const st::Shape w{4, 3};
  refused({{"weight.step", full({}, 2)}, {"weight.exp_avg", full(w, 1)}}, "weight.exp_avg_sq");
  refused({{"weight.step", full({}, 2)}, {"weight.exp_avg", full(w, 1)}, {"weight.exp_avg_sq", full({3, 4}, 1)}},
          "different");
  refused({{"weight.step", full({}, 1.5f)}, {"weight.exp_avg", full(w, 1)}, {"weight.exp_avg_sq", full(w, 1)}},
          "number of steps");
  refused({{"weight.step", full({}, std::nanf(""))}, {"weight.exp_avg", full(w, 1)}, {"weight.exp_avg_sq", full(w, 1)}},
          "number of steps");
  refused({{"weight.step", full({}, 1)},
           {"weight.exp_avg", full(w, 1)},
           {"weight.exp_avg_sq", full(w, 1)},
           {"weight.max_exp_avg_sq", full(w, 1)}},
          "unexpected in the file");
  refused({{"other.step", full({}, 1)}}, "the state of any of the optimiser's parameters");
  std::ofstream(path) << "no file of tensors";
  CHECK_THROWS_AS(st::load_optimizer(path, adam), st::FileError);
}
