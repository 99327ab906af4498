#!/usr/bin/env python3
"""Compiles every host header by itself, with warnings as errors, and with CUDA headers that stop the compiler in front of
the include path.

    headers_alone.py COMPILER include/strata [--umbrella-flag FLAG...] [--only HEADER...] [--stamps FOLDER] -- FLAGS...

strata.hpp, which reaches all the others, is compiled once more with each --umbrella-flag: code for instruction sets that
this machine does not have is compiled too. With --only the headers named (strata/strata.hpp) stand for all. All are read after the
macros that headers of other systems and libraries define (system_macros.hpp). FOLDER remembers what was well, so that a header is
compiled again only when it, or one it includes, has changed. Returns 77, which CTest shows as skipped, when COMPILER is empty.
"""
import argparse
import concurrent.futures
import hashlib
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Those of our own builds, and some that programs which include the headers may have.
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wpedantic", "-Wold-style-cast", "-Wundef", "-Werror"]
WHOLE = ["strata/strata.hpp", "strata/cuda.hpp", "strata/io/onnx_export.hpp"]  # what a program includes
POISONED = ["cuda.h", "cuda_runtime.h", "cuda_runtime_api.h", "cuda_fp16.h", "cuda_bf16.h", "device_launch_parameters.h",
            "cublas_v2.h", "cublasLt.h", "cudnn.h", "curand.h", "nvrtc.h", "mma.h"]


def compile_one(compiler, header, flags, folder, with_macros=True):
    """The compiler's words about a program that is just this header, included twice; empty when it is content. A header that
    includes another library does without those macros, which Eigen, say, does not bear."""
    here = pathlib.Path(__file__).resolve().parent
    before, after = f'#include "{here}/system_macros.hpp"\n', ""
    if header in WHOLE:
        before, after = "#define STRATA_WHOLE\n" + before, f'#include "{here}/system_macros_after.hpp"\n'
    if not with_macros:
        before = after = ""
    program = f'{before}#include "{header}"\n#include "{header}"\n{after}int main() {{}}\n'
    only_gcc = [] if "clang" in pathlib.Path(compiler).name else ["-Wuseless-cast"]
    done = subprocess.run([compiler, *flags, *WARNINGS, *only_gcc, "-fsyntax-only", "-x", "c++", "-"], input=program, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder)
    if done.returncode == 0 and not done.stdout:
        return ""
    return done.stdout or f"the compiler returned {done.returncode}"


def reach(root, header):
    """The texts of a header and of all of Strata's headers it includes, by their names."""
    reached, waiting = {}, [header]
    while waiting:
        name = waiting.pop()
        file = root.parent / name
        if name not in reached and file.is_file():
            reached[name] = file.read_text()
            waiting += re.findall(r'#\s*include\s*"(strata/[^"]+)"', reached[name])
    return reached


def libraries_of(root, header):
    """The <Library/header>s of other projects that a header includes, itself or by others."""
    found = re.findall(r'#\s*include\s*<((?:opencv2|Eigen|unsupported)/[^>]+)>', "\n".join(reach(root, header).values()))
    return sorted(set(found))


def lacks_library(compiler, libraries, flags):
    """The first of these headers that this machine has not; empty when all are there."""
    for name in libraries:
        program = f"#if __has_include(<{name}>)\nthere\n#endif\n"
        done = subprocess.run([compiler, *flags, "-E", "-P", "-x", "c++", "-"], input=program, text=True, stdout=subprocess.PIPE, check=True)
        if "there" not in done.stdout:
            return name
    return ""


def fingerprint(root, header, command):
    """A name for the command and the text of the header and of all of Strata's headers it includes."""
    reached = reach(root, header)
    return hashlib.sha256(repr((command, sorted(reached.items()))).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--umbrella-flag", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--stamps", type=pathlib.Path)
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, flags = parser.parse_args(arguments[:split]), arguments[split + 1:]
    if not options.compiler or options.compiler.endswith("-NOTFOUND"):
        print("SKIPPED: no such compiler on this machine")
        return 77

    # distributed/mpi.hpp wants an MPI's own flags: tests/distributed compiles it, with the same warnings.
    headers = [f"strata/{path.relative_to(options.root)}" for path in sorted(options.root.rglob("*.hpp")) if path.name != "mpi.hpp"]
    if not headers or not set(options.only) <= set(headers):
        print(f"no headers in {options.root}, or not those of --only: {options.only}")
        return 1
    macros = [file.read_text() for file in sorted(pathlib.Path(__file__).resolve().parent.glob("system_macros*.hpp"))]
    version = subprocess.run([options.compiler, "--version"], text=True, stdout=subprocess.PIPE).stdout
    if options.stamps:
        options.stamps.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in POISONED:
            pathlib.Path(folder, name).write_text(f'#error "a host header of Strata included <{name}>"\n')
        headers = options.only or headers
        for header in list(headers):
            if missing := lacks_library(options.compiler, libraries_of(options.root, header), flags):
                print(f"{header}: left out, since <{missing}> is not installed")
                headers.remove(header)
        jobs = [("strata/strata.hpp", flag) for flag in options.umbrella_flag] + [(header, "") for header in headers]

        def work(job):
            header, flag = job
            more = [*flags, *([flag] if flag else [])]
            stamp = None
            if options.stamps:
                stamp = options.stamps / fingerprint(options.root, header, (header, version, more, WARNINGS, POISONED, macros))
                if stamp.exists():
                    return ""
            words = compile_one(options.compiler, header, [f"-I{folder}", *more], folder,
                                not libraries_of(options.root, header))
            if stamp and not words:
                stamp.touch()
            return words

        # The poison must work, or the test would pass whatever the headers include.
        if not compile_one(options.compiler, "cuda_runtime.h", [f"-I{folder}"], folder):
            print("the poisoned cuda_runtime.h was not found")
            return 1
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            failed = 0
            for (header, flag), words in zip(jobs, pool.map(work, jobs)):
                if words:
                    failed += 1
                    print(f"--- {header} {flag}\n{words}")
    print(f"{options.compiler}: {len(headers)} headers, {len(jobs)} compilations, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
