#!/usr/bin/env python3
"""What a network costs the compiler: processor seconds and peak memory of compiling some programs.

    benchmarks/compile_cost.py                                  # g++ and clang++, -O2 -march=native
    benchmarks/compile_cost.py --compiler g++ --flags "-O0"
    benchmarks/compile_cost.py --layers 50 100 200 400          # how the cost grows with the number of layers
    benchmarks/compile_cost.py --before OTHER/include --rounds 5   # two versions in turns, medians

The programs: an empty one, the training of the 17-layer DnCNN (Repeat: one block, whatever the depth), and a pack of distinct
layers, no two convolutions alike, forward in Infer, and in Train with backward. The first two once more with what the targets
strata::kernels and strata::compiled compile by themselves left out, and that.
"""
import argparse
import os
import pathlib
import shutil
import statistics
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
    parser.add_argument("--only", action="append", help="a part of a program's name; may be given several times")
    parser.add_argument("--before", metavar="FOLDER", help="another version's include folder, compiled in turns with this one's")
    parser.add_argument("--rounds", type=int, default=1, help="how often each is compiled; the median counts [1]")
    parser.add_argument("--include", action="append", default=[], help="where stb is [Debian's places]")
    options = parser.parse_args()
    compilers = options.compiler or [c for c in ("g++", "clang++-16") if shutil.which(c)]
    include = pathlib.Path(__file__).resolve().parent.parent / "include"
    folders = options.include or ["/usr/include/stb"]
    versions = [("before", pathlib.Path(options.before)), ("after", include)] if options.before else [("", include)]

    kernels = "#define STRATA_COMPILED_KERNELS\n"
    compiled = "#define STRATA_COMPILED\n" + kernels
    empty = HEAD + "int main() {}\n"
    programs = {"empty program with strata.hpp": empty, "the same, strata::compiled": compiled + empty, "DnCNN-17, training": DNCNN}
    programs["DnCNN-17, strata::kernels"] = kernels + DNCNN
    programs["DnCNN-17, strata::compiled"] = compiled + DNCNN
    programs["the kernels by themselves"] = '#include "strata/cpu/kernels.cpp"\n'
    programs["the rest of strata::compiled"] = '#include "strata/compiled.cpp"\n'
    for layers in options.layers:
        programs[f"{layers} distinct layers, Infer"] = pack(layers, training=False)
        programs[f"{layers} distinct layers, Train"] = pack(layers, training=True)
    if options.only:
        programs = {name: text for name, text in programs.items() if any(part in name for part in options.only)}

    print(f"{'program':34} {'compiler':12} {'version':8} {'CPU s':>8} {'peak MB':>8}   {options.flags}")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder, "program.cpp")
        for name, text in programs.items():
            source.write_text(text)
            for compiler in compilers:
                costs = {version: [] for version, _ in versions}
                for _ in range(options.rounds):
                    for version, headers in versions:
                        if version == "before" and "strata::compiled" in name and not (headers / "strata/compiled.cpp").is_file():
                            continue
                        command = [compiler, "-std=c++20", *options.flags.split(), f"-I{headers}"]
                        command += [part for place in folders for part in ("-isystem", place)]
                        cost = measure([*command, "-c", str(source), "-o", str(pathlib.Path(folder, "program.o"))])
                        failed |= cost is None
                        costs[version] += [cost] if cost else []
                for version, measured in costs.items():
                    if measured:
                        seconds, memory = (statistics.median(values) for values in zip(*measured))
                        print(f"{name:34} {compiler:12} {version:8} {seconds:8.1f} {memory:8.0f}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
