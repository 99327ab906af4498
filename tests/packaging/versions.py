#!/usr/bin/env python3
"""Every file that names Strata's version names that of version.hpp."""
import json
import pathlib
import re
import sys

from tools import need, version

source = pathlib.Path(sys.argv[1])
number = version(source)
citation = (source / "CITATION.cff").read_text()
for key in ("cff-version", "message", "title", "authors", "type", "license"):
    need(re.search(rf"^{key}:", citation, re.M), f"CITATION.cff lacks {key}")
config = (source / "include/strata/core/config.hpp").read_text()
named = {
    "CITATION.cff": re.search(r"^version: (.+)$", citation, re.M)[1],
    "vcpkg.json": json.loads((source / "cmake/packaging/vcpkg/strata/vcpkg.json").read_text())["version"],
    "config.hpp": re.search(r"STRATA_ABI v(\w+)_baseline", config)[1].replace("_", "."),
}
for file, found in named.items():
    wanted = number.rsplit(".", 1)[0] if file == "config.hpp" else number
    need(found == wanted, f"{file} names version {found}, and version.hpp {number}")
for file, least in (("docs/installing.md", 3), ("tests/consumers/cpm/CMakeLists.txt", 1), ("tests/consumers/fetch_content/CMakeLists.txt", 1)):
    versions = re.findall(r"(?:strata[-/]|-dev_|\bv|VERSION )(\d+\.\d+\.\d+)", (source / file).read_text())
    need(len(versions) >= least, f"{file} names {len(versions)} versions, wanted at least {least}")
    for found in versions:
        need(found == number, f"{file} names version {found}, and version.hpp {number}")
print(f"version {number}")
