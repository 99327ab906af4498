#!/usr/bin/env python3
"""Writes Strata as one header, for Compiler Explorer, for a small example to share:

    scripts/amalgamate.py -o strata.hpp                     all that <strata/strata.hpp> gives
    scripts/amalgamate.py -o conv.hpp strata/nn/sequential.hpp strata/nn/conv2d.hpp      these and what they stand on
    g++ -std=c++20 -O3 -march=native program.cpp -o program -pthread                     #include "strata.hpp"

What the program includes is that one file and the standard library. stb, which reads and writes pictures, is copied
into it from this machine (Debian: libstb-dev); with --no-stb it stays an #include, and for headers that touch no
picture it is not asked for. What is compiled once for each program (strata::compiled) is inline here, so
STRATA_COMPILED is refused, and so are headers of CUDA. The same sources give the same bytes.
"""
import argparse
import os
import pathlib
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Macros that a program with files of its own for what is no template defines: known to be undefined here.
COMPILED = {f"STRATA_COMPILED{what}" for what in ("", "_KERNELS", "_DOUBLE_KERNELS", "_GROUPED_KERNELS")}
STB_FOLDERS = ["/usr/include/stb", "/usr/local/include/stb", "/opt/homebrew/include/stb", "/usr/include"]
AGAIN = {"assert.h", "cassert"}  # headers that may mean something else each time
DIRECTIVE = re.compile(r"\s*#\s*(\w+)\s*(.*?)\s*(?://.*)?$")


class Problem(Exception):
    pass


def find_stb(folder):
    for candidate in [folder] if folder else STB_FOLDERS:
        if all(pathlib.Path(candidate, name).is_file() for name in ("stb_image.h", "stb_image_write.h")):
            return pathlib.Path(candidate)
    where = folder or ", ".join(STB_FOLDERS)
    raise Problem(f"stb_image.h and stb_image_write.h are not in {where}: install libstb-dev (Debian, Ubuntu), or give "
                  "--stb FOLDER, or leave them an #include with --no-stb")


class Amalgamation:
    """The text so far, and which headers are in it."""

    def __init__(self, include, stb, embed_stb):
        self.include, self.stb, self.embed_stb = include, stb, embed_stb
        self.lines, self.headers, self.system = [], set(), set()

    def known(self, directive, condition):
        """Whether a condition holds, where that is known when the header is written; None otherwise."""
        if directive in ("ifdef", "ifndef") and condition in COMPILED:
            return directive == "ifndef"
        if directive == "if" and self.embed_stb and condition.startswith("__has_include(<stb/stb_image.h>)"):
            return True
        return None

    def add(self, name, depth=0):
        """A header by the name under which others include it; depth counts the conditions around it."""
        path = self.include / name
        if not path.is_file():
            raise Problem(f"there is no {name} in {self.include}")
        if path.suffix in (".cuh", ".cu") or name.startswith("strata/cuda/"):
            raise Problem(f"{name} is for nvcc: the one header is for programs on the CPU")
        text = path.read_text()
        if "#pragma once" in text:
            if name in self.headers:
                return
            if depth:
                raise Problem(f"{name} is included under a condition only, so that what follows might lack it")
            self.headers.add(name)
        self.lines.append(f"// ---- {name}")
        # Conditions around the line: (settled, taken, was one taken): settled ones leave no directive behind.
        stack, file_depth = [], depth
        for number, line in enumerate(text.splitlines(), 1):
            directive, rest = m.groups() if (m := DIRECTIVE.match(line)) else ("", "")
            live = all(taken for settled, taken, _ in stack if settled)
            if directive in ("if", "ifdef", "ifndef"):
                known = self.known(directive, rest) if live else False
                stack.append((known is not None, known, known))
                if known is not None:
                    continue
                depth += 1
            elif directive in ("elif", "else") and stack and stack[-1][0]:
                outside = all(taken for settled, taken, _ in stack[:-1] if settled)
                if directive == "elif" and outside and not stack[-1][2]:
                    raise Problem(f"{name}:{number}: an #elif after a condition that is known to fail")
                stack[-1] = (True, not stack[-1][2], True)
                continue
            elif directive == "endif":
                settled, _, _ = stack.pop()
                if settled:
                    continue
                depth -= 1
            if not all(taken for settled, taken, _ in stack if settled) or (directive == "pragma" and rest == "once"):
                continue
            if directive == "include":
                self.add_include(line, rest, depth)
            else:
                self.lines.append(line)
        if stack or depth != file_depth:
            raise Problem(f"{name} ends inside a condition")

    def add_include(self, line, rest, depth):
        if rest.startswith('"'):
            self.add(rest.strip('"'), depth)
            return
        header = rest.strip("<>")
        if "stb_image" in header and self.embed_stb:
            # Inside a namespace, and the standard headers it names were included before: its text is taken as it is.
            name = header.removeprefix("stb/")
            self.stb = self.stb if isinstance(self.stb, pathlib.Path) else find_stb(self.stb)
            text = (self.stb / name).read_text()
            self.lines += [f"// ---- {name}, of stb: its licence is at its end", *text.splitlines()]
            return
        if rest.startswith("<") and header not in AGAIN:
            if header in self.system:
                return
            if not depth:
                self.system.add(header)
        self.lines.append(line)

    def text(self, headers):
        version = re.search(r'STRATA_VERSION "([^"]+)"', (self.include / "strata/version.hpp").read_text())[1]
        licence = (self.include.parent / "LICENSE").read_text().rstrip().splitlines()
        for header in headers:
            self.add(header)
        refused = " || ".join(f"defined({name})" for name in sorted(COMPILED))
        top = [f"// Strata {version} in one header, made by scripts/amalgamate.py of " + ", ".join(headers) + ".",
               "// g++ -std=c++20 -O3 -march=native program.cpp -o program -pthread",
               "//", *(f"// {line}".rstrip() for line in licence), "#pragma once", f"#if {refused}",
               '#error "strata in one header has all code inline: compile without -DSTRATA_COMPILED and its like"',
               "#endif"]
        return "\n".join(top + self.lines) + "\n"


def write(path, text):
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", nargs="*", metavar="HEADER", default=["strata/strata.hpp"],
                        help="as a program includes it (default: strata/strata.hpp)")
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, help="the file to write")
    parser.add_argument("--stb", metavar="FOLDER", help="the folder that holds stb_image.h and stb_image_write.h")
    parser.add_argument("--no-stb", action="store_true", help="leave stb an #include")
    parser.add_argument("--include", type=pathlib.Path, default=ROOT / "include", help="the folder that holds strata/")
    options = parser.parse_args()
    try:
        made = Amalgamation(options.include, options.stb, not options.no_stb).text(options.headers)
    except Problem as problem:
        print(f"amalgamate.py: {problem}", file=sys.stderr)
        return 1
    write(options.output, made)
    print(f"{options.output}: {len(made.splitlines()):,} lines, {len(made) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
