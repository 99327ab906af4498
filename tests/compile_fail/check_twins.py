#!/usr/bin/env python3
"""Compiles the two halves of a compile-fail test with one compiler.

    check_twins.py COMPILER --headers FOLDER --precompile -- FLAGS...
    check_twins.py COMPILER --headers FOLDER tests/compile_fail/NAME.cpp -- FLAGS...
    check_twins.py COMPILER --self-test

The first reads the headers that most of the tests include, once for all that are given the same FOLDER and flags.

A test NAME.cpp is the right program, with the mistake between #ifdef FAIL and #endif (or #else). At its top it says what
the compiler must tell the user:

    // expect: the number of channels C must be positive
    // expect-context: Image<0

A test that stands on a library which may not be there names a header of it, and is skipped without:

    // needs: Eigen/Core

A mistake in the compiler's flags has no #ifdef; there is a line for each flag that must be refused:

    // fail-flags: -ffast-math

Without FAIL it must compile. With FAIL it must not: the compiler prints exactly one error, every 'expect:' sentence
stands in the line of that error, and every 'expect-context:' text somewhere in what it prints. A text may be for one
compiler only: 'expect[gcc]:', 'expect-context[clang]:'. Returns 77, which CTest shows as skipped, when COMPILER is empty.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

FLAGS = re.compile(r"\s*// fail-flags(?:\[(gcc|clang)\])?: (.+?)\s*$")
EXPECTATION = re.compile(r"\s*// expect(-context)?(?:\[(gcc|clang)\])?: (.+?)\s*$")
ERROR = re.compile(r"(^|\s)(fatal )?error: ")
# For g++ no more than most need, since it instantiates the templates that these headers use again for each program.
PRECOMPILED = {"gcc": ["nn/sequential.hpp", "nn/residual.hpp", "nn/repeat.hpp", "nn/conv2d.hpp"],
               "clang": ["strata.hpp", "io/onnx_export.hpp"]}


def kind_of(compiler):
    return "clang" if "clang" in pathlib.Path(compiler).name else "gcc"


def precompile(compiler, folder, flags):
    folder.mkdir(parents=True, exist_ok=True)
    header = folder / "all.hpp"
    header.write_text("".join(f'#include "strata/{name}"\n' for name in PRECOMPILED[kind_of(compiler)]))
    if kind_of(compiler) == "clang":
        output = ["-fpch-instantiate-templates", "-o", str(folder / "all.hpp.pch")]
    else:
        output = ["-o", str(folder / "all.hpp.gch")]
    return subprocess.run([compiler, "-std=c++20", *flags, "-x", "c++-header", str(header), *output]).returncode


def precompiled_flags(compiler, folder):
    """-Winvalid-pch: g++ would quietly read the header again where it cannot use what it has read before."""
    if kind_of(compiler) == "clang":
        return ["-include-pch", str(folder / "all.hpp.pch")]
    return ["-Winvalid-pch", "-include", str(folder / "all.hpp")]


def compile_half(compiler, source, flags):
    command = [compiler, "-std=c++20", "-fsyntax-only", "-fno-diagnostics-color", *flags, str(source)]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, "LC_ALL": "C"})
    return done.returncode, done.stdout


def check(compiler, source, flags):
    """What is wrong with the test's two halves; empty when all is as it should be."""
    kind = kind_of(compiler)
    text = source.read_text()
    expectations = [m for m in map(EXPECTATION.match, text.splitlines()) if m and m[2] in (None, kind)]
    if not any(not m[1] for m in expectations):
        return "the file has no line '// expect: ...' at its top"
    wrong_flags = [m[2].split() for m in map(FLAGS.match, text.splitlines()) if m and m[1] in (None, kind)]
    if not re.search(r"#\s*if.*\bFAIL\b", text) and not wrong_flags:
        return "the file has no '#ifdef FAIL'"

    status, words = compile_half(compiler, source, flags)
    if status != 0:
        return f"the right half does not compile:\n{words}"
    for more in wrong_flags or [["-DFAIL"]]:
        status, words = compile_half(compiler, source, [*flags, *more])
        if status == 0:
            return f"the wrong half compiles ({' '.join(more)})"
        errors = [line for line in words.splitlines() if ERROR.search(line)]
        if len(errors) != 1:
            return f"wanted one error, got {len(errors)}:\n{words}"
        for expectation in expectations:
            wanted, place = expectation[3], words if expectation[1] else errors[0]
            if wanted not in place:
                return f"wanted in the {'text' if expectation[1] else 'error'}: {wanted}\ngot:\n{words}"
        print(errors[0])
    return ""


# Tests with a fault, and a part of what must be said about each; "" for the one that is right.
GOOD = '// expect: N must be positive\ntemplate <int N> struct A { static_assert(N > 0, "A<N>: N must be positive"); };\n'
SELF_TEST = {
    "right": (GOOD + "#ifdef FAIL\nA<0> a;\n#else\nA<1> a;\n#endif\n", ""),
    "in_a_function": (GOOD + "template <int N> void f() { A<N> a; }\n#ifdef FAIL\nvoid g() { f<0>(); }\n#endif\n", ""),
    "right_half_broken": (GOOD + "#ifndef FAIL\nA<0> a;\n#endif\n", "the right half does not compile"),
    "wrong_half_compiles": (GOOD + "#ifdef FAIL\nA<2> a;\n#endif\n", "the wrong half compiles"),
    "two_errors": (GOOD + "#ifdef FAIL\nA<0> a;\nA<-1> b;\n#endif\n", "wanted one error, got 2"),
    "other_sentence": (GOOD + "#ifdef FAIL\nint i = nothing;\n#endif\n", "wanted in the error: N must be positive"),
    "other_context": ("// expect-context: B<0>\n" + GOOD + "#ifdef FAIL\nA<0> a;\n#endif\n", "wanted in the text: B<0>"),
    "no_expectation": ("#ifdef FAIL\nint i = nothing;\n#endif\n", "no line '// expect: ...'"),
    "flags": ("// expect: no A\n// fail-flags: -DA\n// fail-flags: -DB\n#ifdef A\n#error no A\n#endif\n#ifdef B\n"
              "#error no A, no B\n#endif\n", ""),
    "flags_taken": ("// expect: no A\n// fail-flags: -DA\n// fail-flags: -DB\n#ifdef A\n#error no A\n#endif\n",
                    "the wrong half compiles (-DB)"),
    "no_halves": (GOOD, "no '#ifdef FAIL'"),
}


def self_test(compiler):
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (content, wanted) in SELF_TEST.items():
            source = pathlib.Path(folder, name + ".cpp")
            source.write_text(content)
            got = check(compiler, source, [])
            if bool(got) != bool(wanted) or wanted not in got:
                failures += 1
                print(f"self-test: {name}: wanted '{wanted}', got '{got}'")
    print(f"self-test: {len(SELF_TEST)} cases, {failures} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("source", nargs="?", type=pathlib.Path)
    parser.add_argument("--headers", type=pathlib.Path)
    parser.add_argument("--precompile", action="store_true")
    parser.add_argument("--self-test", action="store_true")
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, flags = parser.parse_intermixed_args(arguments[:split]), arguments[split + 1:]
    if not options.compiler or options.compiler.endswith("-NOTFOUND"):
        print("SKIPPED: no such compiler on this machine")
        return 77
    if options.self_test:
        return self_test(options.compiler)
    if options.precompile:
        return precompile(options.compiler, options.headers, flags)
    plain_flags = flags
    if options.headers and "// fail-flags" not in options.source.read_text():  # headers read with one set of flags are for those
        flags = precompiled_flags(options.compiler, options.headers) + flags
    for name in re.findall(r"^// needs: (.+?)\s*$", options.source.read_text(), re.MULTILINE):
        program = f"#if __has_include(<{name}>)\nthere\n#endif\n"
        command = [options.compiler, *plain_flags, "-E", "-P", "-x", "c++", "-"]
        if "there" not in subprocess.run(command, input=program, text=True, stdout=subprocess.PIPE, check=True).stdout:
            print(f"SKIPPED: there is no <{name}>")
            return 77
    wrong = check(options.compiler, options.source, flags)
    if wrong:
        print(f"{options.source}: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
