#!/usr/bin/env python3
"""Compiles the CUDA backend with nvcc and holds what ptxas says of each kernel against a table.

    check_kernels.py NVCC include/ kernels.tsv --arch 80 [--arch 90 ...]     fails where the table and ptxas differ
    check_kernels.py NVCC include/ kernels.tsv --arch 80 ... --update        writes the table
    check_kernels.py NVCC include/ --self-test                               checks that planted faults are found
    check_kernels.py --without-table ... other.cu                            another source file, and no table

For each kernel: no registers are spilled, no local memory is used (unless the table says so), no double precision (unless
the table says so), shared memory as in the table, and no more registers than there. Registers are compared only with the
version of nvcc that wrote the table; another one may use a few more. Returns 77, which CTest shows as skipped, where NVCC
is empty.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

ARCHITECTURES = [75, 80, 90, 100, 120]

SPILLING = """
#include "strata/cuda/launch.cuh"
STRATA_GLOBAL void __launch_bounds__(1024, 2) spills(const float* x, float* y) {
  float v[96];
#pragma unroll
  for (int i = 0; i < 96; ++i) v[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 96; ++i) y[(i * 37 % 96) * 1024 + threadIdx.x] = v[i] * v[(i + 7) % 96] + v[(i + 41) % 96];
}
STRATA_GLOBAL void local_memory(const int* where, float* y) {
  float v[64];
  for (int i = 0; i < 64; ++i) v[i] = y[i];
  for (int i = 0; i < 64; ++i) v[where[i] & 63] += v[where[i + threadIdx.x] & 63];
  y[threadIdx.x] = v[where[threadIdx.x] & 63];
}
STRATA_GLOBAL void stray_double(float* y) { y[threadIdx.x] *= 0.1; }
STRATA_GLOBAL void content(float* y) {
  STRATA_SHARED(float, s, [64]);
  s[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
void run(float* y, int* where) {
  using strata::cuda::launch;
  (void)launch<&spills>(1, 1024, 0, nullptr, y, y), (void)launch<&local_memory>(1, 16, 0, nullptr, where, y);
  (void)launch<&stray_double>(1, 64, 0, nullptr, y), (void)launch<&content>(1, 64, 0, nullptr, y);
}
"""


def short_name(signature):
    """cuda::relu<256>(float*) and its like -> relu<256>: no namespaces of ours, no return type, no parameters."""
    name = re.sub(r"strata::v\w+::(cuda::)?", "", signature)
    name = re.sub(r"^void ", "", name)
    depth = 0
    for i, c in enumerate(name):
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i]
    return name


def run(command):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nreturned {done.returncode}:\n{done.stdout}")
    return done.stdout


def compile_kernels(nvcc, source, include, arch, folder):
    """Kernel -> dict(registers, shared, spilled, local, double), by the short name."""
    ptx, cubin = folder / f"{arch}.ptx", folder / f"{arch}.cubin"
    # The host's part of the file is not compiled here: the program that links strata::cuda does that.
    run([nvcc, "-std=c++20", f"-I{include}", f"-arch=compute_{arch}", "-ptx", source, "-o", ptx])
    double, current = set(), None
    for line in ptx.read_text().splitlines():
        entry = re.match(r"\s*(?:\.visible |\.weak |\.extern )*\.entry (\w+)", line)
        if entry:
            current = entry[1]
        elif current and re.search(r"^\s+(@\S+\s+)?\w+(\.\w+)*\.f64\b", line):
            double.add(current)
    words = run([nvcc, f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v", ptx, "-o", cubin])
    kernels = {}
    for name, stack, stores, loads, registers, rest in re.findall(
            r"Function properties for (\w+)\n\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads\n"
            r"ptxas info\s+: Used (\d+) registers(.*)", words):
        shared = re.search(r"(\d+) bytes smem", rest)
        kernels[name] = dict(registers=int(registers), shared=int(shared[1]) if shared else 0,
                             spilled=int(stores) + int(loads), local=int(stack), double=name in double)
    if not kernels:
        sys.exit(f"ptxas named no kernel:\n{words}")
    plain = run(["c++filt", *kernels]).splitlines()
    named = {}
    for signature, facts in zip(plain, kernels.values()):
        name = short_name(signature)
        if name in named:
            sys.exit(f"two kernels are called {name}")
        named[name] = facts
    return named


def read_table(path):
    """(version of nvcc, {kernel: {"allowed": set, arch: (registers, shared)}})"""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    version, heads = re.search(r"^# nvcc (\S+)", path.read_text(), re.M)[1], lines[0].split("\t")
    table = {}
    for line in lines[1:]:
        cells = line.split("\t")
        row = {"allowed": set(cells[1].split()) - {"-"}}
        for head, cell in zip(heads[2:], cells[2:]):
            if cell != "-":
                row[int(head.removeprefix("sm_"))] = tuple(map(int, cell.split("/")))
        table[cells[0]] = row
    return version, table


def write_table(path, version, compiled, old):
    archs = sorted(set(compiled) | {arch for row in old.values() for arch in row if arch != "allowed"})
    with path.open("w") as out:
        out.write(f"# nvcc {version}\n"
                  "# Registers of a thread / bytes of static shared memory of a block, by tests/cuda_static/check_kernels.py --update.\n"
                  "# 'allowed' is written by hand: double and local, where a kernel has a reason.\n")
        out.write("\t".join(["kernel", "allowed", *(f"sm_{arch}" for arch in archs)]) + "\n")
        for name in sorted(set().union(*compiled.values())):
            row, cells = old.get(name, {}), []
            for arch in archs:
                facts = compiled[arch].get(name) if arch in compiled else None
                cell = (facts["registers"], facts["shared"]) if facts else row.get(arch) if arch not in compiled else None
                cells.append("/".join(map(str, cell)) if cell else "-")
            out.write("\t".join([name, " ".join(sorted(row.get("allowed", ()))) or "-", *cells]) + "\n")


def problems(kernels, arch, table, same_version):
    for name, facts in sorted(kernels.items()):
        row = table.get(name, {}) if table is not None else {}
        allowed = row.get("allowed", ())
        who = f"sm_{arch}: {name}"
        if facts["spilled"]:
            yield f"{who} spills registers ({facts['spilled']} bytes)"
        if facts["local"] and "local" not in allowed:
            yield f"{who} uses {facts['local']} bytes of local memory"
        if facts["double"] and "double" not in allowed:
            yield f"{who} computes in double precision"
        if table is None:
            continue
        if arch not in row:
            yield f"{who} is not in the table"
            continue
        registers, shared = row[arch]
        if facts["shared"] != shared:
            yield f"{who} has {facts['shared']} bytes of shared memory, {shared} in the table"
        if same_version and facts["registers"] > registers:
            yield f"{who} takes {facts['registers']} registers, {registers} in the table"
    for name in sorted(set(table or ()) - set(kernels)):
        if arch in table[name]:
            yield f"sm_{arch}: {name} is in the table, and no kernel of that name is compiled"


def self_test(nvcc, include):
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "planted.cu"
        source.write_text(SPILLING)
        kernels = compile_kernels(nvcc, source, include, 80, folder)
        table = {kernel: {"allowed": set(), 80: (facts["registers"], facts["shared"])} for kernel, facts in kernels.items()}
        table["content"][80] = (table["content"][80][0] - 1, 255)
        table["gone"] = {"allowed": set(), 80: (1, 0)}
        table["stray_double"] = {"allowed": {"local"}}
        found = "\n".join(problems(kernels, 80, table, True))
        for wanted in ["spills spills registers", "local_memory uses 256 bytes of local memory",
                       "stray_double computes in double precision", "stray_double is not in the table",
                       "content has 256 bytes of shared memory, 255 in the table", "content takes ", "gone is in the table"]:
            if wanted not in found:
                sys.exit(f"not found: '{wanted}', in\n{found}")
        table["content"][80] = (table["content"][80][0] + 1, 256)
        again = "\n".join(problems({"content": kernels["content"]}, 80, {"content": table["content"]}, True))
        if again:
            sys.exit(f"a kernel that is content is not: {again}")
        print("every planted fault is found")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nvcc")
    parser.add_argument("include", type=pathlib.Path)
    parser.add_argument("table", type=pathlib.Path, nargs="?")
    parser.add_argument("--arch", type=int, action="append", choices=ARCHITECTURES)
    parser.add_argument("--source", type=pathlib.Path, help="instead of the backend's own; without a table")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = parser.parse_args()
    if not arguments.nvcc:
        print("SKIPPED: nvcc is not installed, so no CUDA code is compiled")
        return 77
    if arguments.self_test:
        self_test(arguments.nvcc, arguments.include)
        return 0
    source = arguments.source or arguments.include / "strata/cuda/cuda.cu"
    version = re.search(r"release ([\d.]+)", run([arguments.nvcc, "--version"]))[1]
    written_by, table = None, None
    if arguments.table and arguments.table.exists():
        written_by, table = read_table(arguments.table)
    compiled, found = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for arch in arguments.arch or [80]:
            compiled[arch] = compile_kernels(arguments.nvcc, source, arguments.include, arch, pathlib.Path(folder))
            if arguments.update:
                print(f"sm_{arch}: {len(compiled[arch])} kernels")
            else:
                found += problems(compiled[arch], arch, table, version == written_by)
                most = max(compiled[arch].items(), key=lambda item: item[1]["registers"])
                print(f"sm_{arch}: {len(compiled[arch])} kernels compile; at most {most[1]['registers']} registers ({most[0]})")
    if arguments.update:
        write_table(arguments.table, version, compiled, table or {})
        for arch in compiled:
            found += problems(compiled[arch], arch, read_table(arguments.table)[1], True)
    elif table is not None and version != written_by:
        print(f"registers are not compared: the table is of nvcc {written_by}, this is {version}")
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
