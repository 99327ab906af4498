#!/usr/bin/env python3
"""Compiles a program with another compiler and runs it.

    compile_and_run.py COMPILER SOURCE --work FOLDER [--run EMULATOR] -- FLAGS...

Returns 77, which CTest shows as skipped, where the compiler, its standard library or the emulator is missing. With ccache a second
run compiles nothing anew.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys


def missing(program):
    return not program or program.endswith("-NOTFOUND")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--run", default="")
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, flags = parser.parse_args(arguments[:split]), arguments[split + 1:]
    if missing(options.compiler) or options.run and missing(options.run):
        print("SKIPPED: the compiler or the emulator is not on this machine")
        return 77
    options.work.mkdir(parents=True, exist_ok=True)
    small, program = options.work / "small.cpp", options.work / options.source.stem
    small.write_text("#include <vector>\nint main() { return int(std::vector<int>(1).size()) - 1; }\n")
    done = subprocess.run([options.compiler, *flags, str(small), "-o", str(options.work / "small")], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode != 0:
        print(f"SKIPPED: {options.compiler} does not compile the smallest program; is its standard library installed?\n{done.stdout}")
        return 77
    ccache = [shutil.which("ccache")] if shutil.which("ccache") else []
    compiling = [flag for flag in flags if flag != "-static"]
    subprocess.run([*ccache, options.compiler, *compiling, "-c", str(options.source), "-o", f"{program}.o"], check=True)
    subprocess.run([options.compiler, *flags, f"{program}.o", "-o", str(program)], check=True)
    return subprocess.run([*([options.run] if options.run else []), str(program)]).returncode


if __name__ == "__main__":
    sys.exit(main())
