#!/usr/bin/env python3
"""Checks that ordinary tools find the definitions in include/strata: ctags must list every class and struct.

    tags.py include/strata           runs ctags; 77 (skipped) where there is none
    tags.py --fix include/strata     writes the namespaces of its headers in the form that ctags reads
    tags.py --self-test              checks that a class which ctags does not see is found out, and seen after --fix

ctags knows no C++20 namespace that is inline in a nested name: 'namespace strata::inline STRATA_ABI {' hides all that
follows, and 'namespace strata { inline namespace STRATA_ABI {' nothing.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile


def defined(text):
    """The classes and structs that begin a line, without declarations and specialisations."""
    text = re.sub(r"//[^\n]*", "", text)
    return set(re.findall(r"^(?:class|struct) (\w+)(?: final)?\s*(?::(?!:)[^;{]*)?\{", text, re.M))


def tagged(root):
    """{file: the classes and structs that ctags finds in it}"""
    command = ["ctags", "--options=NONE", "-R", "--languages=C++", "--langmap=C++:.hpp.cuh", "--kinds-C++=cs", "-f", "-",
               "."]
    found = {}
    for line in subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines():
        name, file = line.split("\t")[:2]
        found.setdefault(pathlib.PurePath(file), set()).add(name)
    return found


def fixed(text):
    """The text with the namespaces that ctags reads."""
    for old, new in (
        (r"^namespace (\w+)::inline (\w+) \{", r"namespace \1 { inline namespace \2 {"),
        (r"^namespace (\w+)::inline (\w+)::([\w:]+) \{", r"namespace \1 { inline namespace \2 { namespace \3 {"),
        (r"^\}  // namespace (\w+)::inline (\w+)$", r"}}  // namespace \1::\2"),
        (r"^\}  // namespace (\w+)::inline (\w+)::([\w:]+)$", r"}}}  // namespace \1::\2::\3"),
    ):
        text = re.sub(old, new, text, flags=re.M)
    return text


def fix(root):
    for file in sorted(p for p in root.rglob("*") if p.suffix in (".hpp", ".cuh", ".cpp", ".cu", ".inc")):
        text = file.read_text()
        if fixed(text) != text:
            file.write_text(fixed(text))
            print(file)


def check(root):
    found, count, problems = tagged(root), 0, []
    for file in sorted(p for p in root.rglob("*") if p.suffix in (".hpp", ".cuh")):
        path = file.relative_to(root)
        names = defined(file.read_text())
        count += len(names)
        problems += [f"{path}: ctags does not find {name}" for name in sorted(names - found.get(path, set()))]
    return count, problems


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        seen, hidden = root / "seen.hpp", root / "hidden.hpp"
        seen.write_text("namespace a { inline namespace B {\ntemplate <int N>\nclass Seen : public X<N> {\n};\n}}\n")
        hidden.write_text("namespace a::inline B::c {\nstruct Hidden {};\nclass Declared;\n}  // namespace a::inline B::c\n")
        count, problems = check(root)
        good = count == 2 and problems == ["hidden.hpp: ctags does not find Hidden"]
        fix(root)
        good = good and check(root) == (2, []) and hidden.read_text().endswith("\n}}}  // namespace a::B::c\n")
    print(f"self-test: {'passed' if good else f'got {count}, {problems}'}")
    return 0 if good else 1


def main():
    if sys.argv[1:2] == ["--fix"]:
        return fix(pathlib.Path(sys.argv[2]))
    if not shutil.which("ctags"):
        print("skipped: no ctags (Debian: universal-ctags)")
        return 77
    if "Universal Ctags" not in subprocess.run(["ctags", "--version"], capture_output=True, text=True).stdout:
        print("skipped: this ctags is not Universal Ctags")
        return 77
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    count, problems = check(pathlib.Path(sys.argv[1]))
    print("\n".join(problems))
    print(f"{count} classes and structs, {len(problems)} not found")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
