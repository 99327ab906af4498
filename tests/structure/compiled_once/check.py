#!/usr/bin/env python3
"""A program linked with what compiled.cpp compiles does what one does that compiles it itself, and one for another processor
does not link with it.

    check.py PROGRAM --objects OBJECT... --compiler FLAG... [--other FLAG]     FLAG of --other: for an older processor
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

parser = argparse.ArgumentParser()
parser.add_argument("source")
parser.add_argument("--objects", nargs="+", required=True)
parser.add_argument("--other")
parser.add_argument("--compiler", nargs=argparse.REMAINDER, required=True)
options = parser.parse_args()


def build(folder, name, flags, objects):
    """The linker's words; empty when it links."""
    program = str(folder / f"{name}.o")
    subprocess.run([*options.compiler, *flags, "-c", options.source, "-o", program], check=True)
    run = subprocess.run([options.compiler[0], program, *objects, "-o", str(folder / name), "-pthread"], capture_output=True, text=True)
    return "" if run.returncode == 0 else run.stderr or "an error without words"


def results(folder, name):
    """What the program prints and writes."""
    out = folder / f"{name}_files"
    out.mkdir()
    words = subprocess.run([str(folder / name), str(out)], capture_output=True, text=True, check=True).stdout
    return words, {file.name: file.read_bytes() for file in sorted(out.iterdir())}


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for kind, flags, objects in ("headers", [], []), ("compiled", ["-DSTRATA_COMPILED"], options.objects):
        if problem := build(folder, kind, flags, objects):
            sys.exit(f"FAILED: {kind}: does not link:\n{problem}")
    alone, compiled = results(folder, "headers"), results(folder, "compiled")
    if alone != compiled or len(alone[1]) != 3 or len(alone[0].splitlines()) != 2:
        sys.exit(f"FAILED: header-only: {alone[0]!r}, {list(alone[1])}; compiled: {compiled[0]!r}, {list(compiled[1])}")
    print(f"{alone[0]}and the same files")
    macros = subprocess.run([*options.compiler, "-dM", "-E", "-x", "c++", "/dev/null"], capture_output=True, text=True, check=True).stdout
    if options.other and "__AVX2__" in macros:
        problem = build(folder, "other", ["-DSTRATA_COMPILED", options.other], options.objects)
        if "undefined reference" not in problem and "undefined symbol" not in problem:
            sys.exit(f"FAILED: compiled for another processor, and the linker says: {problem or 'nothing'}")
        print("compiled for another processor it does not link")
