// Writes the corpora that only Strata can write: checkpoints, and safetensors files of each kind.
//
//     fuzz_make_corpus tests/fuzz/corpus
#include <cstdio>
#include <filesystem>

#include "checkpoint_run.hpp"

namespace st = strata;
namespace fs = std::filesystem;

int main(int argc, char** argv) {
  if (argc != 2) return std::fputs("usage: fuzz_make_corpus FOLDER\n", stderr), 1;
  const fs::path folder = argv[1];
  for (const char* name : {"checkpoint", "safetensors"}) fs::create_directories(folder / name);

  fuzz::Run run;
  st::save_checkpoint(folder / "checkpoint/new", {.seed = 1}, run.net, run.sgd, run.scheduler);
  st::Train pass;  // a step gives the optimiser a state
  pass.backward(mean(square(run.net(pass, st::Image<1>::full(2, 2, 2, 1)))));
  run.sgd.step();
  run.scheduler.step();
  st::save_checkpoint(folder / "checkpoint/trained",
                      {.epoch = 1, .batch = 2, .step = 1, .seed = 1, .best = 30.5, .extra = {{"a", "b"}}}, run.net,
                      run.sgd, run.scheduler);
  st::save_weights(folder / "checkpoint/weights", run.net);

  st::save_weights(folder / "safetensors/weights", run.net);
  const st::AnyTensor tensors[] = {st::Tensor<float>::full(st::Shape{2, 1, 2, 1}, 1.5f),
                                   st::Tensor<double>::full(st::Shape{}, 3),
                                   st::Tensor<std::int64_t>::full(st::Shape{2}, 3), st::Tensor<float>(st::Shape{0, 9})};
  st::write_safetensors(folder / "safetensors/checksum",
                        {{"a\"\n", &tensors[0]}, {"b", &tensors[1]}, {"c", &tensors[2]}, {"d", &tensors[3]}},
                        {{"k", "v"}}, {.checksum = true});
  return 0;
}
