#!/usr/bin/env python3
"""What a network costs the compiler: processor seconds and peak memory of compiling some programs.

    benchmarks/compile_cost.py                                  # g++ and clang++, -O2 -march=native
    benchmarks/compile_cost.py --compiler g++ --flags "-O0"
    benchmarks/compile_cost.py --layers 50 100 200 400          # how the cost grows with the number of layers

The programs: the training of the 17-layer DnCNN (Repeat: one block, whatever the depth), and a pack of distinct layers,
no two convolutions alike, forward in Infer, and in Train with backward. The training once more with the kernels left out
(STRATA_COMPILED_KERNELS), and those kernels.
"""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HEAD = '#include "strata/strata.hpp"\n\nnamespace st = strata;\n\n'

DNCNN = HEAD + """
template <int Width>
using Block = st::Sequential<st::Conv2d<Width, Width, 3, st::no_bias>, st::BatchNorm2d<Width>, st::ReLU>;
template <int Channels = 1, int Width = 64, int Depth = 17>
using DnCNN = st::Residual<st::Sequential<st::Conv2d<Channels, Width>, st::ReLU, st::Repeat<Depth - 2, Block<Width>>,
                                          st::Conv2d<Width, Channels>>>;

int main() {
  DnCNN<> net;
  st::initialize(net, 1);
  st::SGD sgd(net, {.lr = 0.1f, .momentum = 0.9f, .weight_decay = 1e-4f});
  const st::MSELoss mse;
  const auto clean = st::Image<1>::full(4, 40, 40, 0.5f), noisy = st::Image<1>::full(4, 40, 40, 0.6f);
  for (int step = 0; step < 10; ++step) {
    st::Train pass;
    const auto loss = mse(net(pass, noisy), clean);
    sgd.zero_grad();
    pass.backward(loss);
    sgd.step();
  }
}
"""


def pack(layers, training):
    """A program with a Sequential of `layers` layers: convolutions of 1 to 2, 2 to 3, ... channels, a ReLU after each."""
    convolutions = layers // 2
    names = ", ".join(f"st::Conv2d<{i}, {i + 1}>, st::ReLU" for i in range(1, convolutions + 1))
    body = f"using Net = st::Sequential<{names}>;\n\nint main() {{\n  Net net;\n  st::initialize(net, 1);\n"
    body += "  const auto x = st::Image<1>::full(1, 8, 8, 0.5f);\n"
    if training:
        body += "  st::Train pass;\n  const auto loss = mean(square(net(pass, x)));\n  pass.backward(loss);\n}\n"
    else:
        body += "  st::Infer pass;\n  const auto y = net(pass, x);\n  return y.shape().c() == 1;\n}\n"
    return HEAD + body


def measure(command):
    """Processor seconds and peak MB of a command, its children included; None when it fails."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    words = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        print("\n".join(words.splitlines()[:20]), file=sys.stderr)
        return None
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compiler", action="append", help="may be given several times")
    parser.add_argument("--flags", default="-O2 -march=native")
    parser.add_argument("--layers", type=int, nargs="+", default=[200])
    parser.add_argument("--include", action="append", default=[], help="where stb is [Debian's places]")
    options = parser.parse_args()
    compilers = options.compiler or [c for c in ("g++", "clang++-16") if shutil.which(c)]
    include = pathlib.Path(__file__).resolve().parent.parent / "include"
    folders = options.include or ["/usr/include/stb"]

    programs = {"empty program with strata.hpp": HEAD + "int main() {}\n", "DnCNN-17, training": DNCNN}
    programs["DnCNN-17, compiled kernels"] = "#define STRATA_COMPILED_KERNELS\n" + DNCNN
    programs["the kernels by themselves"] = '#include "strata/cpu/kernels.cpp"\n'
    for layers in options.layers:
        programs[f"{layers} distinct layers, Infer"] = pack(layers, training=False)
        programs[f"{layers} distinct layers, Train"] = pack(layers, training=True)

    print(f"{'program':34} {'compiler':12} {'CPU s':>8} {'peak MB':>8}   {options.flags}")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, text in programs.items():
            source = pathlib.Path(folder, "program.cpp")
            source.write_text(text)
            for compiler in compilers:
                command = [compiler, "-std=c++20", *options.flags.split(), f"-I{include}"]
                command += [part for place in folders for part in ("-isystem", place)]
                cost = measure([*command, "-c", str(source), "-o", str(pathlib.Path(folder, "program.o"))])
                failed |= cost is None
                figures = f"{cost[0]:8.1f} {cost[1]:8.0f}" if cost else "does not compile"
                print(f"{name:34} {compiler:12} {figures}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
