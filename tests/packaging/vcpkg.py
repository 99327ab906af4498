#!/usr/bin/env python3
"""The vcpkg port: its manifest is well formed, its portfile runs, and what it installs is found where vcpkg puts it.

vcpkg itself is no need. With VCPKG_ROOT in the environment (a clone of vcpkg: its scripts and ports) the portfile runs
with vcpkg's own functions, else with those of vcpkg_functions.cmake. Neither downloads anything: stb is this machine's.
"""
import json
import os
import pathlib
import re
import shutil

from tools import configure, need, options, run, version

given = options()
port, work, number = given.source / "cmake/packaging/vcpkg/strata", given.work, version(given.source)

# The manifest, as vcpkg's documentation of vcpkg.json wants it.
manifest = json.loads((port / "vcpkg.json").read_text())
fields = {"name", "version", "description", "homepage", "license", "supports", "dependencies", "features",
          "port-version", "maintainers"}
need(set(manifest) <= fields, f"unknown fields in vcpkg.json: {set(manifest) - fields}")
need((manifest["name"], manifest["version"], manifest["license"]) == ("strata", number, "MIT"),
     "vcpkg.json: name, version or licence")
identifier = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*$")
dependencies = list(manifest["dependencies"])
for name, feature in manifest["features"].items():
    need(identifier.match(name) and set(feature) == {"description", "dependencies"}, f"vcpkg.json: the feature {name}")
    dependencies += feature["dependencies"]
for dependency in dependencies:
    name = dependency if isinstance(dependency, str) else dependency["name"]
    keys = set() if isinstance(dependency, str) else set(dependency)
    need(identifier.match(name) and keys <= {"name", "host", "features", "platform"},
         f"vcpkg.json: the dependency {dependency}")
need({"stb", "vcpkg-cmake", "vcpkg-cmake-config"} <= {d if isinstance(d, str) else d["name"] for d in dependencies},
     "vcpkg.json lacks a dependency")

installed, packages = work / "installed/x64-linux", work / "packages/strata_x64-linux"
installed.mkdir(parents=True)
known = {"PORT": "strata", "VERSION": number, "CURRENT_PORT_DIR": port, "CURRENT_PACKAGES_DIR": packages,
         "CURRENT_BUILDTREES_DIR": work / "buildtrees/strata"}
if root := os.environ.get("VCPKG_ROOT"):
    for helper in ("vcpkg-cmake", "vcpkg-cmake-config"):
        shutil.copytree(f"{root}/ports/{helper}", installed / "share" / helper)
    triplet = f"{root}/triplets/x64-linux.cmake"
    known |= {"CMD": "BUILD", "TARGET_TRIPLET": "x64-linux", "_HOST_TRIPLET": "x64-linux",
              "TARGET_TRIPLET_FILE": triplet, "_VCPKG_INSTALLED_DIR": work / "installed",
              "VCPKG_ROOT_DIR": root, "DOWNLOADS": work, "FEATURES": "core",
              "VCPKG_CONCURRENCY": 1, "VCPKG_BASE_VERSION": "2026-01-01",
              "VCPKG_FIXUP_ELF_RPATH": "OFF",  # there is no binary, and patchelf would be downloaded
              "VCPKG_PORT_CONFIGS": ";".join(f"{installed}/share/{helper}/vcpkg-port-config.cmake"
                                             for helper in ("vcpkg-cmake", "vcpkg-cmake-config"))}
    script = pathlib.Path(root, "scripts/ports.cmake")
else:
    known |= {"CURRENT_INSTALLED_DIR": installed, "GENERATOR": given.generator, "COMPILER": given.compiler}
    script = given.source / "tests/packaging/vcpkg_functions.cmake"
print(run(given.cmake, *(f"-D{key}={value}" for key, value in known.items()), "-P", script, cwd=work))

# What vcpkg checks after it, and what a program sees.
for name in ("copyright", "usage", "strata-config.cmake", "strata-targets.cmake", "StrataDependencies.cmake"):
    need((packages / "share/strata" / name).is_file(), f"the port installs no share/strata/{name}")
need((packages / "include/strata/strata.hpp").is_file(), "the port installs no headers")
need(not (packages / "debug").exists() and not (packages / "lib").exists() and not (packages / "share/cmake").exists(),
     "the port installs debug/, lib/ or share/cmake/")
for file in packages.rglob("*"):
    if file.suffix in (".cmake", ".pc", ".hpp"):
        need(str(work) not in file.read_text(), f"{file} names the folder it was built in")
shutil.copytree(packages, installed, dirs_exist_ok=True)
shutil.rmtree(packages)
configure(given, given.source / "tests/packaging/consumer", work / "consumer", f"-DCMAKE_PREFIX_PATH={installed}")
cache = (work / "consumer/CMakeCache.txt").read_text()
need(f"strata_DIR:PATH={installed}/share/strata" in cache, "find_package found another Strata")
if given.generator == "Ninja":
    commands = run(given.cmake, "--build", work / "consumer", "--", "-n", "-v")
    need(f" {installed}/include " in commands, "the program is not given the port's headers")
print("by vcpkg's functions" if root else "by functions in place of vcpkg's")
