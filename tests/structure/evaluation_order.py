#!/usr/bin/env python3
"""Finds expressions whose result depends on the order in which a compiler evaluates arguments or operands.

    evaluation_order.py PATH...        checks all sources in the folders, and the C++ in documents
    evaluation_order.py --self-test    checks that each kind is found, and that what is well is not

C++ leaves that order open, and g++ and clang choose differently. So one list of arguments, or one expression, may not

- draw from a random stream, or read from a stream of bytes, twice,
- run two modules in one training pass: what they record, and which random numbers dropout gets, follows that order,
- record the values of several expressions, as as_var(x)... does,
- move from a variable and use it.

Declarations after each other, lists in braces, && || ?: , << and = have an order of their own and are well.
"""
import pathlib
import re
import sys

SUFFIXES = {".hpp", ".cpp", ".cuh", ".cu", ".inc", ".md"}
STATEFUL = r"Rng|NumpyRandom|mt19937(?:_64)?|Train|P"   # types whose objects a call changes; P: a pass of either kind
DECLARATION = re.compile(rf"\b(?:({STATEFUL})|Infer|auto(?=\s*&\s*pass\b))\b\s*&?\s*\b(\w+)\b")
DRAWS = {"uniform", "normal", "below", "coin", "bits", "fill_normal", "next_rng", "pop", "take", "next", "operator"}
NO_EFFECT = {"check_pass", "requires", "decltype", "sizeof", "CHECK_THROWS_AS"}
TOKEN = re.compile(r"[A-Za-z_]\w*|::|->|&&|\|\||<<|>>|[-+*/%&|^!=<>]=|\d[\w.']*|\S")
CLOSING = {"(": ")", "[": "]", "{": "}"}


def without_comments(text):
    """The text with comments and the insides of strings as spaces, so that lines keep their numbers."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: '""' + re.sub(r"[^\n]", " ", m[0])[2:] if m[0][0] in "\"R" else re.sub(r"[^\n]", " ", m[0]), text)


class Group:
    """A pair of brackets and what is between; `before` is the token in front, `line` where it opens."""

    def __init__(self, kind, before, line):
        self.kind, self.before, self.line, self.items = kind, before, line, []


def parse(text):
    root = Group("{", "", 1)
    stack, line, last = [root], 1, 0
    for match in TOKEN.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        token = match[0]
        if token in CLOSING:
            items = stack[-1].items
            before = items[-1] if items else ""
            group = Group(token, before if isinstance(before, str) else before.kind + CLOSING[before.kind], line)
            group.callee = next((t for t in reversed(items) if isinstance(t, str) and re.match(r"\w", t)), "")
            items.append(group)
            stack.append(group)
        elif token in CLOSING.values():
            if len(stack) > 1:
                stack.pop()
        else:
            stack[-1].items.append(token)
    return root


def split(items, separators):
    parts = [[]]
    for item in items:
        if isinstance(item, str) and item in separators:
            parts.append([])
        else:
            parts[-1].append(item)
    return parts


def is_body(group):
    """Whether a pair of braces holds statements and not values."""
    return group.kind == "{" and (group.before in ("()", "[]", "mutable", "noexcept", "const", "STRATA_INLINED", "else", "do",
                                                   "try", "", ";", "{}", ":") or any(item == ";" for item in group.items))


class Checker:
    def __init__(self, declarations):
        self.declarations, self.problems = declarations, []

    def changes(self, token, line):
        """Whether the name, as it was declared last before the line, is of something that a call changes."""
        stateful = [well for at, name, well in self.declarations if name == token and at <= line]
        return bool(stateful) and stateful[-1]

    def report(self, line, what):
        self.problems.append((line, what))

    def block(self, group):
        """Statements."""
        statement = []
        for item in [*group.items, ";"]:
            if item == "," or item == ";" or not isinstance(item, str) and is_body(item):
                self.expression(statement + ([] if isinstance(item, str) else [item]), group.line)
                statement = []
            else:
                statement.append(item)

    def expression(self, items, line):
        """The streams that an expression changes; reports two changes of one with no order between them."""
        changed = set()
        for segment in split(items, {"&&", "||", "?", ":", "<<", ">>", "=", "+=", "-=", "*=", "/=", "|=", "^="}):
            seen, chain = set(), set()  # of the operands so far; of this one: in a.f(x).g(y) the x is evaluated before the y
            for i, item in enumerate(segment):
                if isinstance(item, str):
                    if not re.match(r"\w|\.|->|::|[<>]", item) or item in "<>" and i > 0 and not isinstance(segment[i - 1], str):
                        seen, chain = seen | chain, set()
                    continue
                effects = self.group(item)
                if item.kind == "(" and i >= 3 and segment[i - 2] in (".", "->") and segment[i - 1] in DRAWS:
                    if self.changes(segment[i - 3], item.line):
                        effects = effects | {segment[i - 3]}
                elif item.kind == "(" and i >= 1 and segment[i - 1] in DRAWS and (i < 2 or segment[i - 2] not in (".", "->", "::")):
                    if segment[i - 1] in ("bits", "pop", "take"):
                        effects = effects | {"this"}
                for name in sorted(effects & seen):
                    self.report(item.line, f"'{name}' is used twice in one expression, in no order: make two statements of it")
                chain |= effects
            changed |= seen | chain
        return changed

    def group(self, group):
        if is_body(group):
            self.block(group)
            return set()
        if group.callee in ("for", "if", "while", "switch") and group.kind == "(":
            self.block(group)
            return set()
        elements = split(group.items, {","})
        effects = [self.expression(element, group.line) for element in elements]
        if group.kind == "(":
            for element, effect in zip(elements, effects):
                if len(element) == 1 and self.changes(element[0], group.line) and group.callee not in NO_EFFECT:
                    effect.add(("passed", element[0]))
        if group.kind != "{":
            for i, effect in enumerate(effects):
                for other in effects[i + 1:]:
                    for name in sorted(n for n in effect & other if isinstance(n, str)):
                        self.report(group.line, f"'{name}' is used by two of the arguments, in no order: make variables of them")
            self.moves(group, elements)
        if group.kind == "(" and group.callee not in NO_EFFECT:
            for text in (" ".join(flat(element)) for element in elements):
                if re.search(r"\b(as_var|var_in)\b", text) and text.endswith(". . ."):
                    self.report(group.line, "a pack of expressions is recorded as arguments, in no order: list them in braces")
        if group.callee in NO_EFFECT:
            return set()
        return {name[1] if isinstance(name, tuple) else name for effect in effects for name in effect}

    def moves(self, group, elements):
        texts = [" ".join(flat(element)) for element in elements]
        for i, text in enumerate(texts):
            for name in re.findall(r"std :: move \( (\w+) \)", text):
                uses = rf"(?<!\. )(?<!-> )\b{name}\b(?! =)"
                if any(re.search(uses, re.sub(r"\[[^\]]*\] \(.*", "", other)) for k, other in enumerate(texts) if k != i):
                    self.report(group.line, f"'{name}' is moved from in one argument and used in another, in no order")


def flat(items):
    for item in items:
        if isinstance(item, str):
            yield item
        elif not is_body(item):
            yield item.kind
            yield from flat(item.items)
            yield CLOSING[item.kind]


def code_of(document):
    """What a document says in C++, on its lines."""
    parts = re.split(r"^```(.*)$", document, flags=re.M)   # text, language, code, "", text, ...
    kept = [part if i % 4 == 2 and parts[i - 1] == "cpp" else re.sub(r"[^\n]", "", part) for i, part in enumerate(parts)]
    return "".join(kept)


def check(text):
    text = without_comments(text)
    checker = Checker([(text.count("\n", 0, m.start()) + 1, m[2], m[1] is not None or m[0].startswith("auto"))
                       for m in DECLARATION.finditer(text)])
    checker.block(parse(text))
    return sorted(set(checker.problems))


HEAD = "st::Rng rng(1);\nst::Train pass;\n"
FAULTS = {  # every kind, and for each what is well
    "f(rng.uniform(), rng.normal());": "f(rng.uniform(), 1.0f);",
    "const Leaf leaf(last ? 1 : rng.uniform(0, 1), rng.below(3));": "const Leaf leaf{rng.uniform(0, 1), rng.below(3)};",
    "bool x = rng.bits() < rng.bits();": "hash.add(rng.bits()).add(rng.uniform());",
    "float x = rng.uniform() - rng.uniform();": "float x = rng.uniform(), y = rng.uniform();",
    "float x = a[rng.below(3)] * scale(rng.normal());": "float x = rng.coin() ? rng.normal() : rng.uniform();",
    "around(base, rng.normal(), draw(rng));": "around(base, rng.normal(), rng);",
    "auto y = body(pass, x) + shortcut(pass, x);": "auto y = body(pass, x); auto z = shortcut(pass, x);",
    "auto y = st::cat(pass, left(pass, x), right(pass, x));": "st::Infer pass; auto y = st::cat(pass, left(pass, x), right(pass, x));",
    "call([&, n = size(x), x = std::move(x)] { use(x); });": "call([&, n, x = std::move(x)] { use(x); });",
    "g(x.size(), std::move(x));": "g(y.size(), std::move(x));",
    "f(detail::var_in<P>(inputs)...);": "std::tuple{detail::var_in<P>(inputs)...};",
    "std::array<int, 2> a(int(rng.bits()), int(rng.bits()));": "for (int i = 0; i < 3; ++i) sum += rng.uniform();",
}


def self_test():
    failures = 0
    for bad, good in FAULTS.items():
        if len(check(HEAD + "void f() {\n" + bad + "\n}\n")) == 0:
            failures += 1
            print(f"self-test: not found: {bad}")
        if problems := check(HEAD + "void f() {\n" + good + "\n}\n"):
            failures += 1
            print(f"self-test: {good}: {problems}")
    document = "Words.\n```cpp\nst::Rng rng(1);\nf(rng.normal(), rng.normal());\n```\n```\nf(rng.normal(), rng.normal());\n```\n"
    if [line for line, _ in check(code_of(document))] != [4]:
        failures += 1
        print("self-test: not found, or found twice, in a document")
    print(f"self-test: {2 * len(FAULTS) + 1} cases, {failures} failures")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    count = failures = 0
    for path in map(pathlib.Path, sys.argv[1:]):
        for file in sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.suffix in SUFFIXES):
            count += 1
            text = file.read_text()
            for line, text in check(code_of(text) if file.suffix == ".md" else text):
                failures += 1
                print(f"{file}:{line}: {text}")
    print(f"{count} files, {failures} problems")
    return 1 if failures or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
