#!/usr/bin/env python3
"""The Conan recipe: conan create, with a program that uses the package. Skipped where there is no Conan 2 (pip install
conan; STRATA_CONAN in the environment names one that is not on the path).

Nothing comes from a network: all is kept in a folder of its own, and stb is packed from this machine's in place of
ConanCenter's.
"""
import os
import pathlib
import re
import shutil

from tools import need, options, run, skip, version

given = options("stb")
conan = os.environ.get("STRATA_CONAN") or shutil.which("conan")
if not conan or not re.search(r"version 2\.", run(conan, "--version", env={"CONAN_HOME": str(given.work / "home")})):
    skip("no Conan 2 on this machine (pip install conan)")

home = {"CONAN_HOME": str(given.work / "home"), "CC": "", "CXX": given.compiler}
recipe = given.source / "cmake/packaging/conan"
required = re.search(r'requires\("stb/([\w.]+)"', (recipe / "conanfile.py").read_text())[1]
run(conan, "profile", "detect", env=home)
run(conan, "remote", "disable", "*", env=home)

stb = given.work / "stb"
stb.mkdir()
for name in ("stb_image.h", "stb_image_write.h"):
    shutil.copy(pathlib.Path(given.stb, name), stb)
(stb / "conanfile.py").write_text(f"""
from conan import ConanFile
from conan.tools.files import copy
import os

class Stb(ConanFile):
    name = "stb"
    version = "{required}"
    package_type = "header-library"
    exports_sources = "*.h"

    def package(self):
        copy(self, "*.h", self.source_folder, os.path.join(self.package_folder, "include"))
""")
run(conan, "create", stb, "-nr", env=home)
# The test program's build folder would lie in the recipe's: it is a copy that is tested, sources and all.
copied = given.work / "source"
for name in ("CMakeLists.txt", "LICENSE", "cmake", "include"):
    if (given.source / name).is_dir():
        shutil.copytree(given.source / name, copied / name)
    else:
        copied.mkdir(exist_ok=True)
        shutil.copy(given.source / name, copied / name)
create = [conan, "create", copied / "cmake/packaging/conan", "-nr", "-s", "build_type=Debug"]
words = run(*create, "-s", "compiler.cppstd=20", env=home)
need(f"Strata {version(given.source)}: 48 values" in words, f"the test program did not run:\n{words}")
caches = [cache.read_text() for cache in copied.rglob("CMakeCache.txt")]
need(caches and all(f"STRATA_STB_INCLUDE_DIR:PATH={given.work}/home" in cache for cache in caches),
     "stb is not the one that the package requires")
print(words[-1500:])
refused = run(*create, "-s", "compiler.cppstd=17", env=home, fails=True)
need("C++ standard (20)" in refused, f"C++17 is not refused: {refused}")
