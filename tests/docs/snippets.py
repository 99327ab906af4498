#!/usr/bin/env python3
"""Compiles the C++ of the documents.

    snippets.py COMPILER PROJECT -- FLAGS...    all ```cpp blocks of README.md and docs/
    snippets.py COMPILER --self-test            checks that mistakes are found, and where they are said to be

All blocks go into one file, so that the headers are read once; each has a namespace of its own, and an error names the
document and its line. In a block

- #include lines are taken to the top of the file;
- what it begins with (structs, templates, using, functions, a main) stays at namespace scope, and from the first
  statement on it is the body of a function;
- what every document may use without a word (`net`, `loader`, `pass`...) is declared in prelude.hpp, beside this file.

What else a block needs stands in front of it in comments that no reader sees. They are HTML:

    <!-- given: st::Conv2d<1, 8> layer; -->                  declarations and statements before the block
    <!-- given: struct Scale { BLOCK }; -->                  or around it
    <!-- not compiled: it shows what the compiler refuses -->  no C++, with the reason; these are counted

A block whose header stands on a library that is not here (OpenCV, Eigen, protozero, CLI11) is passed over, and said so.
Returns 77, which CTest shows as skipped, when COMPILER is empty.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^( *)(```+|~~~+) *([^`\s]*)[^`\n]*$")
COMMENT = re.compile(r"<!-- *(given|not compiled): *(.*?) *-->", re.S)
INCLUDE = re.compile(r'^\s*#include\s*([<"][^>"]+[>"]).*$')
CPP_NAMES = {"c++", "cxx", "C++", "CPP", "Cpp", "hpp", "cc"}
# What a header of ours wants of another library.
LIBRARIES = {"strata/interop/opencv.hpp": "opencv2/core.hpp", "strata/interop/eigen.hpp": "Eigen/Core",
             "strata/interop/eigen_tensor.hpp": "Eigen/Core", "strata/metrics/frechet.hpp": "Eigen/Core",
             "strata/io/onnx_export.hpp": "protozero/pbf_writer.hpp", "CLI/CLI.hpp": "CLI/CLI.hpp",
             "opencv2/core.hpp": "opencv2/core.hpp", "Eigen/Core": "Eigen/Core"}
DECLARES = re.compile(r"(template|struct|class|enum|union|using|namespace|static_assert|inline|concept|extern)\b")
CONTROLS = re.compile(r"(for|if|while|do|switch|try|else|return)\b")
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused", "-Wno-unused-parameter"]
LIMIT = 140  # columns of a document's line


class DocumentError(Exception):
    pass


class Block:
    def __init__(self, name, line, text):
        self.name, self.line, self.text = name, line, text
        self.given = []       # (line, text)
        self.reason = None    # why it is not compiled


def blocks_of(name, document):
    """The C++ blocks of a document, with the comments that belong to each."""
    blocks, pending, lines, i = [], [], document.split("\n"), 0
    while i < len(lines):
        if "<!--" in lines[i]:
            first, text = i, lines[i]
            while "-->" not in text:
                i += 1
                if i == len(lines) or FENCE.match(lines[i]):
                    raise DocumentError(f"{name}:{first + 1}: error: a comment that does not end")
                text += "\n" + lines[i]
            for comment in COMMENT.finditer(text):
                pending.append((first + 1 + text.count("\n", 0, comment.start(2)), comment[1], comment[2]))
        elif match := FENCE.match(lines[i]):
            indent, fence, language = match.groups()
            first, body = i + 1, []
            i += 1
            while i < len(lines) and lines[i].strip() != fence:
                body.append(lines[i].removeprefix(indent))
                i += 1
            if i == len(lines):
                raise DocumentError(f"{name}:{first}: error: a block that does not end")
            if language in CPP_NAMES:
                raise DocumentError(f"{name}:{first}: error: call the block's language cpp, so that it is compiled")
            if language == "cpp":
                block = Block(name, first + 1, "\n".join(body))
                for line, kind, text in pending:
                    if kind == "given":
                        block.given.append((line, text))
                    else:
                        if len(text) < 10:
                            raise DocumentError(f"{name}:{line}: error: not compiled, but why?")
                        block.reason = text
                blocks.append(block)
                pending = []
        elif lines[i].strip() and pending:
            raise DocumentError(f"{name}:{pending[0][0]}: error: a comment for a C++ block, and none follows")
        i += 1
    if pending:
        raise DocumentError(f"{name}:{pending[0][0]}: error: a comment for a C++ block, and none follows")
    return blocks


def blanked(text):
    """The text with comments and the insides of strings as spaces; places and lines stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " " if m[0][0] == "/" else "_", m[0]), text)


def split(text):
    """Where the statements begin, behind the declarations at its start."""
    code, depth, start = blanked(text), 0, 0
    for i, character in enumerate(code):
        depth += (character in "([{") - (character in ")]}")
        ends = depth == 0 and (character == ";" or character == "}" and not re.match(r"\s*[;,)(.]", code[i + 1:]))
        if ends:
            chunk = code[start:i + 1].strip()
            is_function = character == "}" and not CONTROLS.match(chunk)
            if not (chunk == ";" or DECLARES.match(chunk) or is_function):
                break
            start = i + 1
    else:
        if not code[start:].strip():
            return len(text)
    return start + len(code[start:]) - len(code[start:].lstrip())


def line_directive(name, line):
    return f'#line {line} "{name}"\n'


def placed(name, line, text):
    return line_directive(name, line) + text + "\n" if text.strip() else ""


def take_includes(text, includes):
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if match := INCLUDE.match(line):
            includes.append(match[1])
            lines[i] = ""
    return "\n".join(lines)


def wrapped(block, number):
    """The includes of a block, and itself as C++."""
    includes, outside, inside = [], "", ""
    text = take_includes(block.text, includes)
    around = None
    for line, given in block.given:
        given = take_includes(given, includes)
        if "BLOCK" in given:
            if around is not None:
                raise DocumentError(f"{block.name}:{line}: error: two texts around one block")
            around = (line, given)
            continue
        at = split(given)
        outside += placed(block.name, line, given[:at])
        inside += placed(block.name, line + given.count("\n", 0, at), given[at:])
    if around is not None:
        before, behind = around[1].split("BLOCK", 1)
        outside += placed(block.name, around[0], before) + placed(block.name, block.line, text)
        outside += placed(block.name, around[0] + before.count("\n"), behind)
    else:
        at = split(text)
        outside += placed(block.name, block.line, text[:at])
        inside += placed(block.name, block.line + text.count("\n", 0, at), text[at:])
    if inside:
        inside = f"[[maybe_unused]] void block() {{\n{inside}}}\n"
    return includes, f"namespace block_{number} {{\n{outside}{inside}}}\n"


def unit_of(blocks, prelude):
    """One file of all blocks."""
    headers, bodies, libraries = [], [], set()
    for number, block in enumerate(blocks):
        if block.reason is not None:
            continue
        includes, body = wrapped(block, number)
        wants = []
        for include in includes:
            library = LIBRARIES.get(include[1:-1])
            condition = f"#if __has_include(<{library}>)\n" if library else ""
            line = f"{condition}#include {include}\n" + ("#endif\n" if library else "")
            if line not in headers:
                headers.append(line)
            if library and library not in wants:
                wants.append(library)
        for library in wants:
            libraries.add(library)
            text = f'snippet passed over: {block.name}:{block.line}: there is no {library}'
            body = f'#if __has_include(<{library}>)\n{body}#else\n#pragma message("{text}")\n#endif\n'
        bodies.append(body)
    pragma = '#pragma GCC diagnostic ignored "-Wreturn-type"  // main, in a namespace\n'
    return f'#include "{prelude}"\n' + "".join(headers) + pragma + "".join(bodies)


def compile_blocks(compiler, blocks, prelude, flags):
    """The exit status, and what the compiler said."""
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "snippets.cpp"
        source.write_text(unit_of(blocks, prelude))
        run = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", *flags, *WARNINGS, str(source)], capture_output=True, text=True)
        return run.returncode, run.stdout + run.stderr


def long_lines(name, document):
    """Lines that are too long; a table's row has no other way."""
    for number, line in enumerate(document.split("\n"), 1):
        if len(line) > LIMIT and not line.lstrip().startswith("|"):
            yield f"{name}:{number}: error: {len(line)} columns, wanted at most {LIMIT}"


def check(compiler, project, flags):
    documents = [project / "README.md", *sorted((project / "docs").rglob("*.md"))]
    blocks, problems = [], []
    for document in documents:
        name, text = str(document.relative_to(project)), document.read_text()
        try:
            blocks += blocks_of(name, text)
        except DocumentError as error:
            problems.append(str(error))
        if name != "README.md":
            problems += long_lines(name, text)
    if problems:
        print("\n".join(problems))
        return 1
    left_out = [block for block in blocks if block.reason is not None]
    if len(blocks) - len(left_out) < 20:
        print(f"{project}: error: only {len(blocks)} blocks of C++ found: was it looked for in the right place?")
        return 1
    status, output = compile_blocks(compiler, blocks, pathlib.Path(__file__).resolve().parent / "prelude.hpp", flags)
    print(output, end="")
    print(f"{len(blocks)} blocks of {len(documents)} documents: {len(blocks) - len(left_out)} compiled, {len(left_out)} not:")
    for block in left_out:
        print(f"  {block.name}:{block.line}: {block.reason}")
    return 1 if status else 0


WELL = """Words.

```cpp
#include <vector>
template <class T>
struct Twice { T operator()(T x) const { return x + x; } };

int twice(int x) { return Twice<int>{}(x); }
std::vector<int> numbers{1, 2};       // the first statement
for (int& number : numbers) { number = twice(number); }
```
<!-- given: struct Scale { int factor = 2;
  BLOCK
}; -->
```cpp
int operator()(int x) const { return factor * x; }
```
<!-- given: const int rows = ready; -->
<!-- given: auto f = [](auto x) { return x; }; -->

```cpp
double sum = f(1.5) * rows;
```
```cpp
int main() {
  int x = ready;
  for (int i = 0; i < 3; ++i) x += i;
}
```
```python
this is no C++
```
<!-- not compiled: it shows what the compiler refuses -->
```cpp
int x = "text";
```
"""
MISTAKES = {  # a change of the document above, the line that must be named, what must be said there
    ("return x + x;", "return x + y;"): (6, "y"),
    ("number = twice(number);", "number = thrice(number);"): (10, "thrice"),
    ("return factor * x;", "return factors * x;"): (16, "factors"),
    ("rows = ready;", "rows = unknown;"): (18, "unknown"),
    ("{ return x; }; -->", "{ return x.size(); }; -->"): (19, "size"),          # found when the template is instantiated
    ("f(1.5) * rows;", 'f(1.5) * "rows";'): (22, "double"),
    ("x += i;", "x += j;"): (27, "j"),
    ("<!-- not compiled: it shows what the compiler refuses -->\n", ""): (34, "int"),
    ("not compiled: it shows what the compiler refuses", "not compiled: no"): (33, "why"),
    ("```cpp\nint main", "```c++\nint main"): (24, "cpp"),
    ("{ return x; }; -->", "{ return x; };"): (19, "does not end"),
    ('int x = "text";\n```\n', 'int x = "text";\n'): (34, "does not end"),
    ("<!-- given: const int rows = ready; -->\n", "<!-- given: const int rows = ready; -->\nWords.\n"): (18, "none follows"),
}


def self_test(compiler):
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        prelude = pathlib.Path(folder) / "prelude.hpp"
        prelude.write_text("#pragma once\ninline const int ready = 3;\n")

        def run(document):
            try:
                return compile_blocks(compiler, blocks_of("doc.md", document), prelude, [])
            except DocumentError as error:
                return 1, str(error)

        status, output = run(WELL)
        if status != 0 or len(blocks_of("doc.md", WELL)) != 5:
            failures += 1
            print(f"self-test: what is well is refused:\n{output}")
        for (old, new), (line, word) in MISTAKES.items():
            status, output = run(WELL.replace(old, new))
            said = [text for text in output.split("\n") if re.match(rf"doc\.md:{line}:.*error", text)]
            if WELL.count(old) != 1 or status == 0 or not any(word in text for text in said):
                failures += 1
                print(f"self-test: {new!r} is not found in line {line}:\n{output}")
        missing = WELL.replace("#include <vector>", "#include <CLI/CLI.hpp>").replace("std::vector<int>", "Missing")
        LIBRARIES["CLI/CLI.hpp"] = "no/such.hpp"
        status, output = run(missing)
        if status != 0 or "snippet passed over: doc.md:4" not in output:
            failures += 1
            print(f"self-test: a library that is not there:\n{output}")
    if list(long_lines("doc.md", "x" * 141 + "\n| " + "x" * 200)) != ["doc.md:1: error: 141 columns, wanted at most 140"]:
        failures += 1
        print("self-test: long lines")
    print(f"self-test: {len(MISTAKES) + 3} cases, {failures} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("project", nargs="?", type=pathlib.Path)
    parser.add_argument("--self-test", action="store_true")
    arguments, flags = parser.parse_known_args()
    if not arguments.compiler:
        print("SKIPPED: no compiler")
        return 77
    if arguments.self_test:
        return self_test(arguments.compiler)
    return check(arguments.compiler, arguments.project.resolve(), [flag for flag in flags if flag != "--"])


if __name__ == "__main__":
    sys.exit(main())
