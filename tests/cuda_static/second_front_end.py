#!/usr/bin/env python3
"""Reads the CUDA backend with clang, as host code and as device code: a second opinion on what is C++ and what is CUDA.

    second_front_end.py CLANG NVCC include/

Nothing is generated (nvcc stays the compiler). Returns 77, which CTest shows as skipped, where CLANG or NVCC is empty.
"""
import pathlib
import subprocess
import sys
import tempfile


def main():
    clang, nvcc, include = sys.argv[1:]
    if not nvcc:
        print("SKIPPED: no CUDA toolkit is installed, whose headers clang needs")
        return 77
    if not clang or clang.endswith("NOTFOUND"):
        print("SKIPPED: no clang of version 16 or newer is installed")
        return 77
    toolkit = pathlib.Path(nvcc).resolve().parent.parent
    with tempfile.TemporaryDirectory() as folder:
        if not (toolkit / "include/texture_fetch_functions.h").exists():
            # clang's own header includes it; CUDA has had none since version 13.
            pathlib.Path(folder, "texture_fetch_functions.h").touch()
        command = [clang, "-x", "cuda", "-std=c++20", f"--cuda-path={toolkit}", "--cuda-gpu-arch=sm_80", "-fsyntax-only",
                   "-Wall", "-Wextra", "-Werror", "-Wno-unknown-cuda-version", "-Wno-unknown-attributes", "-isystem", folder, f"-I{include}",
                   f"{include}/strata/cuda/cuda.cu"]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print(done.stdout or "clang has nothing to say")
    return 1 if done.returncode != 0 or done.stdout else 0


if __name__ == "__main__":
    sys.exit(main())
