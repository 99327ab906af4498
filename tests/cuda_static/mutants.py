#!/usr/bin/env python3
"""Takes each barrier and each bounds guard out of the CUDA kernels, one at a time, and runs the tests of the backend on the
host: a test has to fail. Prints those that no test notices, and returns 1 if there are any.

    mutants.py CXX PROJECT SCRATCH [--jobs N] [--only FILE.cuh] [--list] [-- FLAGS...]

The mutants are all compiled at once: in a copy of include/strata/cuda every place asks whether it is the one. What is a
place, inside a kernel or a function of a kernel:

    __syncthreads(), __syncwarp(...), cp_async_wait<...>()      left out
    a < b and a <= b outside the head of a for loop             taken to be true
    a >= b and a > b outside the head of a for loop             taken to be true; and taken to be false, since
                                                                "if (i >= size) return;" is a guard too

A mutant that is taken to be equal to the program, for a reason, is marked in the source by a comment on its line that
begins with 'not a guard:'; it is left out.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import time

HELPER = """
#include <cstdio>
#include <cstdlib>
#include <limits>
namespace strata_mutation {
inline const int active = std::getenv("STRATA_MUTANT") ? std::atoi(std::getenv("STRATA_MUTANT")) : -1;
inline struct Reached {  // the places that the program came by, written to the file STRATA_MUTANTS_REACHED at its end
  bool places[10000] = {};
  ~Reached() {
    const char* const path = std::getenv("STRATA_MUTANTS_REACHED");
    std::FILE* const file = path != nullptr ? std::fopen(path, "w") : nullptr;
    if (file == nullptr) return;
    for (int k = 0; k < 10000; ++k)
      if (places[k]) std::fprintf(file, "%d\\n", k);
    std::fclose(file);
  }
} reached;
__attribute__((noinline, no_sanitize("thread"))) inline bool is(int number) {
  reached.places[number] = true;
  return number == active;
}
template <class T> inline T upper(int number, T value) { return is(number) ? std::numeric_limits<T>::max() : value; }
template <class T> inline T lower(int number, T value) { return is(number) ? std::numeric_limits<T>::lowest() : value; }
}
"""
FLAGS = ["-std=c++20", "-O1", "-g1", "-w", "-march=native", "-fsanitize=thread", "-DSTRATA_CUDA_ON_HOST", "-DSTRATA_TESTS_FOLDER=\"\""]
DEVICE = re.compile(r"\bSTRATA_(GLOBAL|DEVICE|HOST_DEVICE|DEVICE_MEMBER|HOST_DEVICE_MEMBER)\b")


def blank_comments(text):
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(\\.|[^"\\\n])*"', lambda m: re.sub(r"[^\n]", " ", m[0]), text, flags=re.S)


def matching(text, start, opening, closing):
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == opening) - (text[i] == closing)
        if depth == 0:
            return i
    raise ValueError("not closed")


def device_ranges(code):
    """(begin, end) of the body of each kernel and device function."""
    for macro in DEVICE.finditer(code):
        if code[code.rfind("\n", 0, macro.start()) + 1:macro.start()].lstrip().startswith("#"):
            continue
        i = macro.end()
        while i < len(code) and code[i] not in "{;":
            i = matching(code, i, "(", ")") + 1 if code[i] == "(" else i + 1
        if i < len(code) and code[i] == "{":
            yield i, matching(code, i, "{", "}")


def for_heads(code):
    for match in re.finditer(r"\bfor \(", code):
        yield match.end() - 1, matching(code, match.end() - 1, "(", ")")


def operand_end(code, start):
    """Where the right operand of a comparison ends."""
    i = start
    while i < len(code):
        if code[i] in "([":
            i = matching(code, i, code[i], ")" if code[i] == "(" else "]") + 1
        elif code[i] in ")];,?:{}" or code.startswith(("&&", "||"), i):
            return i
        else:
            i += 1
    return i


def places(text):
    """(begin, end, replacement with {k} and perhaps {next}, line, words) of every place of a file."""
    code = blank_comments(text)
    heads = list(for_heads(code))
    excused = {number for number, line in enumerate(text.splitlines(), 1) if "not a guard:" in line}
    found = {}
    for begin, end in device_ranges(code):
        for match in re.finditer(r"__syncthreads\(\)|__syncwarp\([^)]*\)|cp_async_wait<[^>]*>\(\)", code[begin:end]):
            found[begin + match.start()] = (begin + match.end(), "(strata_mutation::is({k}) || (" + match[0] + ", true))")
        for match in re.finditer(r" (<|<=|>=|>) ", code[begin:end]):
            at = begin + match.start()
            line = code[code.rfind("\n", 0, at) + 1:code.find("\n", at)]
            if any(a < at < b for a, b in heads) or re.search(r"\bconstexpr\b|static_assert|\btemplate\b|\boperator\b", line):
                continue
            first = begin + match.end()
            last = operand_end(code, first)
            operand = code[first:last].strip()
            found[first] = (last, f"strata_mutation::upper({{k}}, {operand}) " if match[1] in ("<", "<=") else
                            f"strata_mutation::lower({{k}}, strata_mutation::upper({{next}}, {operand})) ")
    for begin, (end, replacement) in sorted(found.items()):
        line = text.count("\n", 0, begin) + 1
        if line not in excused:
            yield begin, end, replacement, line, text.splitlines()[line - 1].strip()


def run(command, **options):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nreturned {done.returncode}:\n{done.stdout[-4000:]}")


def main():
    own, flags = (sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:]) if "--" in sys.argv else (sys.argv[1:], [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("project", type=pathlib.Path)
    parser.add_argument("scratch", type=pathlib.Path)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--only")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args(own)
    compiler = shlex.split(arguments.compiler)  # "ccache g++" too
    project, scratch = arguments.project.resolve(), arguments.scratch.resolve()

    mutants = []
    for file in sorted((project / "include/strata/cuda").glob("*.cuh")):
        text, parts, done = file.read_text(), [], 0
        if file.name not in ("launch.cuh", "mma.cuh"):
            for begin, end, replacement, line, words in places(text):
                if begin < done:
                    continue  # inside another one's operand
                parts += [text[done:begin], replacement.replace("{k}", str(len(mutants))).replace("{next}", str(len(mutants) + 1))]
                for what in ("", " (false)") if "{next}" in replacement else ("",):
                    mutants.append((file.name, line, text[begin:end].strip() + what, words))
                done = end
        target = scratch / "include/strata/cuda" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(parts) + text[done:]
        if file.name == "launch.cuh":
            text = text.replace("#pragma once", "#pragma once\n" + HELPER, 1)
        target.write_text(text)
    if arguments.list:
        for number, (file, line, what, words) in enumerate(mutants):
            print(f"{number:4} {file}:{line}: {what}    in    {words}")
        return 0

    tests, shim = project / "tests", project / "tests/cuda_on_host"
    include = [f"-I{scratch}/include", f"-I{project}/include", f"-I{tests}", f"-I{shim}/include"]
    (scratch / "objects").mkdir(exist_ok=True)
    sources = [*sorted((tests / "cuda").glob("*_test.cpp")), tests / "main.cpp", *sorted((shim / "src").glob("*.cpp"))]
    (scratch / "cuda.cpp").write_text('#include "strata/cuda/provider.cuh"\n')

    def compile_one(source):
        out = scratch / "objects" / f"{source.parent.name}_{source.stem}.o"
        own_flags = FLAGS if source.parent != shim / "src" else [flag for flag in FLAGS if "thread" not in flag]
        run([*compiler, *own_flags, *flags, *include, "-c", source, "-o", out])
        return out
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        objects = list(pool.map(compile_one, [scratch / "cuda.cpp", *sources]))
    program = scratch / "tests"
    run([*compiler, *objects, "-o", program, "-pthread", "-ldl"])

    def try_one(file):  # without a mutant all is well
        trace, start = scratch / f"{file}.reached", time.monotonic()
        run([program, f"--source-file=*/{file}"], timeout=1200, env={**os.environ, "STRATA_MUTANTS_REACHED": str(trace)})
        return time.monotonic() - start, file, {int(line) for line in trace.read_text().split()}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        tried = sorted(pool.map(try_one, [source.name for source in sources if source.parent == tests / "cuda"]))
    for seconds, file, reached in tried:
        print(f"{file}: {seconds:.1f} s, comes by {len(reached)} of {len(mutants)} places", flush=True)

    def survives(number):
        """Whether no test fails, of the files whose tests come by the place; quick ones are asked first."""
        for seconds, file, reached in tried:
            if number not in reached:
                continue
            limit = int(30 + 10 * seconds)  # of processor time, so that a busy machine does not count
            done = subprocess.run([program, "--abort-after=1", f"--source-file=*/{file}"],
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (limit, limit)),
                                  env={**os.environ, "STRATA_MUTANT": str(number)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if done.returncode != 0:
                return False
        return True
    chosen = [number for number, mutant in enumerate(mutants) if arguments.only in (None, mutant[0])]
    survivors = []
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for number, alive in zip(chosen, pool.map(survives, chosen)):
            if alive:
                file, line, what, words = mutants[number]
                survivors.append(number)
                print(f"survives: {number}, {file}:{line}: {what}    in    {words}", flush=True)
    print(f"{len(chosen)} mutants, {len(survivors)} survive")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
