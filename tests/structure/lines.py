#!/usr/bin/env python3
"""Finds lines of C++ that are longer than the formatter's limit (.clang-format: ColumnLimit).

    lines.py REPOSITORY     checks all sources under include, examples, tests and benchmarks
    lines.py --self-test    checks that what is too long is found, and what may be long is not

Examples in comments (`//     ...`, indented) and lines with a string that cannot be broken may be longer, and so may
text in raw strings, which is another language's.
"""
import pathlib
import re
import sys

SUFFIXES = {".hpp", ".cpp", ".cuh", ".cu", ".inc"}
FOLDERS = ("include", "examples", "tests", "benchmarks")


def too_long(text, limit):
    """The numbers of the lines that are too long."""
    raw = re.sub(r'R"(\w*)\(.*?\)\1"', lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    found = []
    for number, line in enumerate(raw.split("\n"), 1):
        example = re.match(r"\s*///?(\s{2,}|\s*[-\[])", line)
        string = re.match(r'\s*(#error )?"[^"]*"?[;,)\\]*$', line)
        if len(line) > limit and not example and not string:
            found.append(number)
    return found


def self_test():
    long = "int " + "a" * 120 + ";"
    assert too_long(f"int x;\n{long}\n", 120) == [2]
    assert too_long("// " + "word " * 30, 120) == [1]
    assert too_long("//     auto y = " + "word " * 30, 120) == []
    assert too_long(f'  "{"word " * 30}";', 120) == []
    assert too_long(f'const char* page = R"(\n{"word " * 30}\n)";\n{long}\n', 120) == [4]
    assert too_long("x" * 120, 120) == []


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    repository = pathlib.Path(sys.argv[1])
    limit = int(re.search(r"^ColumnLimit: (\d+)", (repository / ".clang-format").read_text(), re.M)[1])
    files = sorted(p for f in FOLDERS for p in (repository / f).rglob("*") if p.suffix in SUFFIXES)
    problems = 0
    for path in files:
        for number in too_long(path.read_text(), limit):
            print(f"{path.relative_to(repository)}:{number}: longer than {limit} columns; clang-format breaks it")
            problems += 1
    print(f"{len(files)} files, {problems} problems")
    return 1 if problems or not files else 0


if __name__ == "__main__":
    sys.exit(main())
