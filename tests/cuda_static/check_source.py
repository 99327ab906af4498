#!/usr/bin/env python3
"""Checks what the source of kernels may not contain, so that all of it runs on the host too.

    check_source.py include/strata/cuda       checks the files
    check_source.py --self-test               checks that each rule finds what it is for
"""
import pathlib
import re
import sys

# What is forbidden -> the files that may have it, and what to write instead.
RULES = [
    (r"__shared__", ["launch.cuh"], "STRATA_SHARED or STRATA_DYNAMIC_SHARED"),
    (r"\b__global__\b", ["launch.cuh"], "STRATA_GLOBAL"),
    (r"<<<", ["launch.cuh"], "strata::cuda::launch"),
    (r"\basm\b", ["mma.cuh"], "a function in mma.cuh, with its equivalent on the host"),
    (r"__CUDA_ARCH__", ["mma.cuh"], "a function in mma.cuh: a kernel's source is the same everywhere"),
    (r"STRATA_CUDA_ON_HOST", ["launch.cuh", "provider.cuh"], "the same source for the host and the device"),
    (r"__CUDACC__", ["launch.cuh", "mma.cuh"], "the same source for the host and the device"),
    (r"\b__activemask\b", [], "a mask that the algorithm gives"),
    (r"reinterpret_cast<\s*(const\s+)?(float|int|uint)[24]\b", ["launch.cuh"], "load_vector or store_vector"),
    (r"\bthis_grid\b|\bcooperative_groups\b", [], "a second launch"),
]


def without_comments(text):
    """The text with comments and strings made blank, line for line."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(\\.|[^"\\\n])*"', blank, text, flags=re.S)


def problems(name, text):
    for number, line in enumerate(without_comments(text).splitlines(), 1):
        for pattern, allowed, instead in RULES:
            if re.search(pattern, line) and name not in allowed:
                yield f"{name}:{number}: {line.strip()}\n    write {instead}"


def self_test():
    for planted in ["__shared__ float s[4];", "extern __shared__ float s[];", "static __global__ void k();", "k<<<1, 2>>>();",
                    'asm volatile("bar.sync 0;");', "#if __CUDA_ARCH__ >= 800", "#ifdef STRATA_CUDA_ON_HOST",
                    "#ifdef __CUDACC__", "__syncwarp(__activemask());", "*reinterpret_cast<const float4*>(x)",
                    "cooperative_groups::this_grid().sync();"]:
        if not list(problems("kernel.cuh", planted)):
            sys.exit(f"not found: {planted}")
    for right in ["// no __shared__ here", "/* asm\n <<< */ int x;", 'fail("no __global__");', "STRATA_SHARED(float, s, [4]);"]:
        if list(problems("kernel.cuh", right)):
            sys.exit(f"found, and right: {right}")
    print("every planted fault is found")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    files = sorted(pathlib.Path(sys.argv[1]).glob("*.cu*"))
    if not files:
        sys.exit(f"no .cuh file in {sys.argv[1]}")
    found = [problem for file in files for problem in problems(file.name, file.read_text())]
    print("\n".join(found) if found else f"{len(files)} files are well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
