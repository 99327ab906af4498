#!/usr/bin/env python3
"""The one header of scripts/amalgamate.py: a program that has it alone trains, and writes and reads a picture."""
import re
import sys

from tools import need, options, run

given = options("stb")
work, script = given.work, given.source / "scripts/amalgamate.py"


def amalgamate(name, *words, fails=False):
    said = run(sys.executable, script, "-o", work / name, *words, fails=fails)
    return said if fails else (work / name).read_bytes().decode()


text = amalgamate("strata.hpp", "--stb", given.stb)
need(text == amalgamate("again.hpp", "--stb", given.stb), "the second run gave another header")
named = set(re.findall(r"^#\s*include\s*([<\"].*[>\"])", text, re.M))
system = re.compile(r"<((sys|sanitizer)/)?\w+(\.h)?>")
others = sorted(name for name in named if not system.fullmatch(name) or "stb" in name)
need(not others, f"the header includes more than the system's: {others}")

# Without stb; with chosen headers, which need none; and what cannot be.
need("#include <stb/stb_image.h>" in amalgamate("no_stb.hpp", "--no-stb"), "--no-stb left out the #include of stb")
small = amalgamate("small.hpp", "--stb", work, "strata/nn/sequential.hpp", "strata/nn/conv2d.hpp")
need("class Conv2d" in small and "stbi_" not in small and len(small) < len(text) / 2, "chosen headers bring all others")
need("libstb-dev" in amalgamate("none.hpp", "--stb", work, fails=True), "wanted an error that names libstb-dev")
need("for nvcc" in amalgamate("none.hpp", "strata/cuda/cuda.cu", fails=True), "wanted an error for a file of CUDA")
need(not (work / "none.hpp").exists(), "a header was written in spite of the error")

program = work / "program"
source = given.source / "tests/packaging/single_header.cpp"
run(given.compiler, "-std=c++20", "-O0", f"-I{work}", source, "-o", program, "-pthread")
print(run(program, cwd=work))
refused = run(given.compiler, "-std=c++20", "-E", "-DSTRATA_COMPILED", f"-I{work}", source, fails=True)
need("compile without -DSTRATA_COMPILED" in refused, f"STRATA_COMPILED is not refused: {refused}")
