#!/usr/bin/env python3
"""Compiles the C++ of the documents.

    snippets.py COMPILER PROJECT -- FLAGS...    all ```cpp blocks of README.md and docs/
    snippets.py COMPILER PROJECT --only docs/layers.md -- FLAGS...
    snippets.py COMPILER --self-test            checks that mistakes are found, and where they are said to be

All blocks go into one file, so that the headers are read once; each has a namespace of its own, and an error names the
document and its line. In a block

- #include lines are taken to the top of the file; one in quotes is for another block of the document, by its name;
- what it begins with (structs, templates, using, functions, a main) stays at namespace scope, and from the first
  statement on it is the body of a function;
- what every document may use without a word (`net`, `loader`, `pass`...) is declared in prelude.hpp, beside this file.

What else a block needs stands in front of it in comments that no reader sees. They are HTML:

    <!-- given: st::Conv2d<1, 8> layer; -->                  declarations and statements before the block
    <!-- given: struct Scale { BLOCK }; -->                  or around it
    <!-- file: network.hpp -->                               the name by which later blocks include it
    <!-- not compiled: it shows what the compiler refuses -->  no C++, with the reason; these are counted

A table behind <!-- rows of C++ --> is compiled by rows: what its second column has in code is a block.

docs/errors.md quotes messages in blocks of "text", with ... for what differs. The parts between are looked for in the
headers; those that are a compiler's or a linker's stand in blocks of "console".

Broken links between documents, lines of more than 140 columns, and layers that docs/layers.md leaves out are looked for,
too. A block whose header stands on a library that is not here (OpenCV, Eigen, protozero, CLI11) is passed over, and said so.
Returns 77, which CTest shows as skipped, when COMPILER is empty.
"""
import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

FENCE = re.compile(r"^( *)(```+|~~~+) *([^`\s]*)[^`\n]*$")
COMMENT = re.compile(r"<!-- *(given|not compiled|file|rows of C\+\+)(?:: *(.*?))? *-->", re.S)
CODE = re.compile(r"(`+) ?(.*?) ?\1")
INCLUDE = re.compile(r'^\s*#include\s*([<"][^>"]+[>"]).*$')
CPP_NAMES = {"c++", "cxx", "C++", "CPP", "Cpp", "hpp", "cc"}
# What a header of ours wants of another library.
LIBRARIES = {"strata/interop/opencv.hpp": "opencv2/core.hpp", "strata/interop/eigen.hpp": "Eigen/Core",
             "strata/interop/eigen_tensor.hpp": "Eigen/Core", "strata/metrics/frechet.hpp": "Eigen/Core", "strata/metrics/niqe.hpp": "Eigen/Core",
             "strata/data/whitening.hpp": "Eigen/Core",
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
        self.files = {}       # what other blocks of the document hold, by name
        self.reason = None    # why it is not compiled


def rows_of(name, first, lines, given):
    """The code in the second column of a table's rows, each a block."""
    for number, line in enumerate(lines, first):
        cells = re.split(r"(?<!\\)\|", line)
        code = [match[2].replace("\\|", "|") for match in CODE.finditer(cells[2])] if number > first + 1 and len(cells) > 2 else []
        if code:
            block = Block(name, number, " ".join(part if part.endswith((";", "}")) else part + ";" for part in code))
            block.given = given
            yield block


def blocks_of(name, document):
    """The C++ blocks of a document, with the comments that belong to each."""
    blocks, pending, files, lines, i = [], [], {}, document.split("\n"), 0
    while i < len(lines):
        if "<!--" in lines[i]:
            first, text = i, lines[i]
            while "-->" not in text:
                i += 1
                if i == len(lines) or FENCE.match(lines[i]):
                    raise DocumentError(f"{name}:{first + 1}: error: a comment that does not end")
                text += "\n" + lines[i]
            for comment in COMMENT.finditer(text):
                at = comment.start(2) if comment[2] is not None else comment.start()
                pending.append((first + 1 + text.count("\n", 0, at), comment[1], comment[2] or ""))
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
                block.files = dict(files)
                for line, kind, text in pending:
                    if kind == "given":
                        block.given.append((line, text))
                    elif kind == "file":
                        files[text] = block
                    elif len(text) < 10:
                        raise DocumentError(f"{name}:{line}: error: not compiled, but why?")
                    else:
                        block.reason = text
                blocks.append(block)
                pending = []
        elif lines[i].startswith("|") and any(kind == "rows of C++" for _, kind, _ in pending):
            first = i
            while i < len(lines) and lines[i].startswith("|"):
                i += 1
            rows = list(rows_of(name, first + 1, lines[first:i], [(line, text) for line, kind, text in pending if kind == "given"]))
            if not rows:
                raise DocumentError(f"{name}:{first + 1}: error: no row of this table has code in its second column")
            blocks += rows
            pending = []
            continue
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
        ends = depth == 0 and (character == ";" or character == "}" and not re.match(r"\s*[;,)(.>]", code[i + 1:]))
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


def take_includes(block, text, includes, others):
    """The text without its #include lines; what they name goes into the two lists."""
    lines = text.split("\n")
    for i, line in enumerate(lines):
        if match := INCLUDE.match(line):
            if match[1][0] == "<":
                includes.append(match[1])
            elif (name := match[1].strip('"')) not in block.files:
                raise DocumentError(f"{block.name}:{block.line}: error: no block before this one is called {name}")
            elif block.files[name] not in others:
                others.append(block.files[name])
            lines[i] = ""
        elif line.strip() == "#pragma once":
            lines[i] = ""
    return "\n".join(lines)


def wrapped(block, number):
    """The includes of a block, and itself as C++."""
    includes, others, outside, inside = [], [], "", ""
    text = take_includes(block, block.text, includes, others)
    placed_others = []
    while len(placed_others) < len(others):           # what these include comes in front of them
        other = others[len(placed_others)]
        placed_others.insert(0, placed(other.name, other.line, take_includes(other, other.text, includes, others)))
    around = None
    for line, given in block.given:
        given = take_includes(block, given, includes, others)
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
    return includes, f"namespace block_{number} {{\n{''.join(placed_others)}{outside}{inside}}}\n"


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
        warnings = WARNINGS + (["-Wno-error=#pragma-messages"] if "clang" in pathlib.Path(compiler).name else [])
        run = subprocess.run([compiler, "-std=c++20", "-fsyntax-only", *flags, *warnings, str(source)], capture_output=True, text=True)
        return run.returncode, run.stdout + run.stderr


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def prose_of(document):
    """The document without its blocks and code."""
    prose, fence = [], None
    for line in document.split("\n"):
        match = FENCE.match(line)
        if fence is None and match:
            fence = match[2]
        elif fence is not None:
            fence = None if line.strip() == fence else fence
            line = ""
        prose.append("" if match or line.startswith("    ") else CODE.sub("", line))
    return prose


def broken_links(path, name, anchors={}):
    """Links to files that are not there, or to no heading of a document."""
    for number, line in enumerate(prose_of(path.read_text()), 1):
        for target in re.findall(r"\]\(([^)\s]+)\)", line):
            if re.match(r"\w+:", target):
                continue
            to, _, anchor = target.partition("#")
            file = path.parent / to if to else path
            if not file.exists():
                yield f"{name}:{number}: error: a link to {to}, which is not there"
            elif anchor:
                if file not in anchors:
                    headings = [line for line in file.read_text().split("\n") if line.startswith("#")]
                    anchors[file] = {slug(heading.lstrip("#")) for heading in headings}
                if anchor not in anchors[file]:
                    yield f"{name}:{number}: error: {file.name} has no heading for #{anchor}"


def layers_without_section(readme, layers):
    """The layers of README's table that the page of layers says nothing of."""
    row = re.search(r"^\| layers \|(.*)$", readme, re.M)
    names = re.findall(r"`([A-Z]\w+)`", row[1]) if row else []
    if not names:
        yield "README.md:1: error: its table has no row of layers"
    for layer in names:
        if f"\n### {layer}\n" not in layers:
            yield f"docs/layers.md:1: error: there is no section for {layer}, which README's table has"


def long_lines(name, document):
    """Lines that are too long; a table's row has no other way."""
    for number, line in enumerate(document.split("\n"), 1):
        if len(line) > LIMIT and not line.lstrip().startswith("|"):
            yield f"{name}:{number}: error: {len(line)} columns, wanted at most {LIMIT}"


def texts_of(source):
    """What a header says: its strings, those that follow each other as one."""
    source = re.sub(r"//[^\n]*", lambda m: m[0] if '"' in m[0] else "", source)
    source = source.replace("\\\n", "")
    source = re.sub(r'(?<!\\)"\s*(?:,\s*|\sSTRATA_\w+\s+)?"', "", source)  # concat's parts too
    return source.replace('\\"', '"')


def wrong_quotations(name, document, headers):
    """Quoted messages of which a part stands in no header."""
    lines, i = document.split("\n"), 0
    count = 0
    while i < len(lines):
        if (match := FENCE.match(lines[i])) and match[3] == "text":
            first = i + 1
            while not lines[i + 1].startswith("```"):
                i += 1
            count += 1
            for part in " ".join(lines[first:i + 1]).split("..."):
                if len(part.strip()) > 3 and part.strip(" ,:;()") not in headers:
                    yield f"{name}:{first + 1}: error: no header says '{part.strip()}'"
            i += 1
        elif match:
            while not lines[i + 1].startswith("```"):
                i += 1
            i += 1
        i += 1
    if count == 0:
        yield f"{name}:1: error: no message is quoted"


def check(compiler, project, only, flags):
    documents = [project / name for name in only] or [project / "README.md", *sorted((project / "docs").rglob("*.md"))]
    blocks, problems = [], []
    for document in documents:
        name, text = str(document.relative_to(project)), document.read_text()
        try:
            blocks += blocks_of(name, text)
        except DocumentError as error:
            problems.append(str(error))
        if name != "README.md":
            problems += long_lines(name, text)
        if name == "docs/errors.md":
            headers = "\n".join(texts_of(header.read_text()) for header in sorted((project / "include").rglob("*.[hic]*")))
            problems += wrong_quotations(name, text, headers)
        problems += broken_links(document, name)
    if not only:
        problems += layers_without_section(*((project / name).read_text() for name in ("README.md", "docs/layers.md")))
    for name in () if only else ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/README.md"):
        problems += broken_links(project / name, name)
    if problems:
        print("\n".join(problems))
        return 1
    left_out = [block for block in blocks if block.reason is not None]
    if len(blocks) - len(left_out) < (1 if only else 50):
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

struct Pair { int a = 0, b = 0; };
template <Pair P> struct Sum { static constexpr int value = P.a + P.b; };
using Three = Sum<Pair{.a = 1, .b = 2}>;
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
<!-- file: half.hpp -->
```cpp
#pragma once
inline int half(int x) { return x / 2; }
```
```cpp
#include "half.hpp"
int quarter = half(half(8));
```
<!-- rows of C++ -->
<!-- given: int n = 3; -->
| Python | C++ | |
|---|---|---|
| `n += 1` | `n += 1` | |
| `n, n = n, n` | nothing | `n` |
| `n or n` | `int m = n \\| n` `++m` | |
"""
MISTAKES = {  # a change of the document above, the line that must be named, what must be said there
    ("return x + x;", "return x + y;"): (6, "y"),
    ("number = twice(number);", "number = thrice(number);"): (13, "thrice"),
    ("return factor * x;", "return factors * x;"): (19, "factors"),
    ("rows = ready;", "rows = unknown;"): (21, "unknown"),
    ("{ return x; }; -->", "{ return x.size(); }; -->"): (22, "double"),        # found when the template is instantiated
    ("f(1.5) * rows;", 'f(1.5) * "rows";'): (25, "double"),
    ("x += i;", "x += j;"): (30, "j"),
    ("<!-- not compiled: it shows what the compiler refuses -->\n", ""): (37, "int"),
    ("not compiled: it shows what the compiler refuses", "not compiled: no"): (36, "why"),
    ("```cpp\nint main", "```c++\nint main"): (27, "cpp"),
    ("{ return x; }; -->", "{ return x; };"): (22, "does not end"),
    ("int quarter = half(half(8));\n```\n", "int quarter = half(half(8));\n"): (45, "does not end"),
    ("return x / 2;", "return y / 2;"): (43, "y"),
    ("half(half(8))", "half(halve(8))"): (47, "halve"),
    ('#include "half.hpp"', '#include "halves.hpp"'): (46, "halves.hpp"),
    ("`n += 1` | |", "`m += 1` | |"): (53, "m"),
    ("`++m` | |", "`++k` | |"): (55, "k"),
    ("<!-- given: const int rows = ready; -->\n", "<!-- given: const int rows = ready; -->\nWords.\n"): (21, "none follows"),
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
        if status != 0 or len(blocks_of("doc.md", WELL)) != 9:
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
    said = texts_of('throw Error(concat(name(), ": got ", x, " pixels, "\n   "wanted 1"));')
    quoted = "```text\n...: got ... pixels,\nwanted 1\n```\n```text\n...: got 3 pixels\n```\n"
    if [problem.split(":")[1] for problem in wrong_quotations("doc.md", quoted, said)] != ["6"]:
        failures += 1
        print(f"self-test: quotations: {list(wrong_quotations('doc.md', quoted, said))}")
    with tempfile.TemporaryDirectory() as folder:
        page = pathlib.Path(folder) / "page.md"
        page.write_text("# A `head`, said\n[a](#a-head-said) [b](page.md#no) `[c](no.md)`\n```\n[d](no.md)\n```\n[e](no.md)\n")
        if [problem.split(":")[1] for problem in broken_links(page, "page.md")] != ["2", "6"]:
            failures += 1
            print(f"self-test: links: {list(broken_links(page, 'page.md'))}")
    found = list(layers_without_section("| layers | `ReLU`, `GELU` (exact) |\n", "# Layers\n\n### ReLU\n"))
    if len(found) != 1 or "GELU" not in found[0]:
        failures += 1
        print(f"self-test: sections of layers: {found}")
    print(f"self-test: {len(MISTAKES) + 6} cases, {failures} failures")
    return 1 if failures else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("compiler")
    parser.add_argument("project", nargs="?", type=pathlib.Path)
    parser.add_argument("--only", action="append", default=[], help="a document, from PROJECT; may be given again")
    parser.add_argument("--self-test", action="store_true")
    arguments, flags = parser.parse_known_args()
    if not arguments.compiler or arguments.compiler.endswith("-NOTFOUND"):
        print("skipped: there is no such compiler here")
        return 77
    if arguments.self_test:
        return self_test(arguments.compiler)
    return check(arguments.compiler, arguments.project.resolve(), arguments.only, [flag for flag in flags if flag != "--"])


if __name__ == "__main__":
    sys.exit(main())
