#!/usr/bin/env python3
"""cpack's packages, unpacked and used: the .tar.gz and the .deb by find_package, what is in both by pkg-config."""
import os
import re
import shlex
import shutil
import tarfile

from tools import configure, need, options, run, skip, version

given = options("cpack", "build")
work, number = given.work, version(given.source)
has_dpkg = shutil.which("dpkg") and shutil.which("dpkg-deb")
run(given.cpack, "--config", f"{given.build}/CPackConfig.cmake", "-G", "TGZ;DEB" if has_dpkg else "TGZ", "-B", work)

# The archive: one folder, which may lie anywhere; what it holds is what an installation holds.
with tarfile.open(work / f"strata-{number}.tar.gz") as archive:
    archive.extractall(work / "archive")
prefix = work / "archive" / f"strata-{number}"
need([entry.name for entry in (work / "archive").iterdir()] == [prefix.name], "the archive is not one folder")
consumer = given.source / "tests/packaging/consumer"
headers, packed = ({path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
                   for folder in (given.source / "include", prefix / "include"))
need(packed == headers, f"the archive's headers are others: {sorted(packed ^ headers)}")
configure(given, consumer, work / "archive_build", f"-DCMAKE_PREFIX_PATH={prefix}")

if has_dpkg:
    deb = work / f"libstrata-dev_{number}_all.deb"
    fields = dict(re.findall(r"^([\w-]+): (.*)$", run("dpkg-deb", "-f", deb), re.M))
    wanted = {"Package": "libstrata-dev", "Version": number, "Architecture": "all", "Depends": "libstb-dev"}
    need(all(fields.get(key) == value for key, value in wanted.items()), f"wanted {wanted} in the .deb, got {fields}")
    run("dpkg-deb", "-x", deb, work / "root")
    prefix = work / "root/usr"
    configure(given, consumer, work / "deb_build", f"-DCMAKE_PREFIX_PATH={prefix}")
    cache = (work / "deb_build/CMakeCache.txt").read_text()
    need(f"strata_DIR:PATH={prefix}/share/cmake/strata" in cache, "find_package found another Strata")
    run(given.cmake, "--build", work / "deb_build")
    print(run(work / "deb_build/consumer", cwd=work))

pkg_config = shutil.which("pkgconf") or shutil.which("pkg-config")
if not pkg_config:
    skip("the packages are well; pkg-config is not installed")


def ask(*words):
    paths = {"PKG_CONFIG_PATH": str(prefix / "share/pkgconfig")}
    return shlex.split(run(pkg_config, *words, env=paths))


def real(flags):
    return [f"-I{os.path.realpath(flag[2:])}" if flag.startswith("-I") else flag for flag in flags]


include = f"-I{prefix.resolve()}/include"
need(ask("--modversion", "strata") == [number], "strata.pc is of another version")
need("-pthread" in ask("--libs", "strata"), "strata.pc lacks -pthread")
kernels, compiled = "-DSTRATA_COMPILED_KERNELS", "-DSTRATA_COMPILED"
for name, defines, sources in (("strata", [], []), ("strata-kernels", [kernels], ["cpu/kernels.cpp"]),
                               ("strata-compiled", [compiled, kernels], ["compiled.cpp", "cpu/kernels.cpp"])):
    flags = real(ask("--cflags", name))
    need(include in flags, f"{name}.pc does not name {include}, but {flags}")
    need(sorted(flag for flag in flags if flag.startswith("-D")) == defines,
         f"{name}.pc should define {defines}, and gives {flags}")
    named = [os.path.realpath(source) for source in ask("--variable=sources", name)]
    wanted = [str(prefix.resolve() / "include/strata" / source) for source in sources]
    need(named == wanted and all(map(os.path.isfile, named)),
         f"{name}.pc should name {sources}, and gives {named}")

program = work / "by_pkg_config"
run(given.compiler, "-std=c++20", consumer / "main.cpp", "-o", program, *ask("--cflags", "--libs", "strata"))
print(run(program, cwd=work))
