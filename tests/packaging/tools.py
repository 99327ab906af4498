"""What the tests of packages share: options, a folder that starts empty, running a command, what a skip is."""
import argparse
import os
import pathlib
import shutil
import subprocess
import sys

SKIPPED = 77


def options(*more):
    parser = argparse.ArgumentParser()
    for name in ("source", "cmake", "generator", "compiler", "work", *more):
        parser.add_argument(f"--{name}", required=True)
    found = parser.parse_args()
    found.source, found.work = pathlib.Path(found.source).resolve(), pathlib.Path(found.work).resolve()
    shutil.rmtree(found.work, ignore_errors=True)
    found.work.mkdir(parents=True)
    return found


def run(*command, cwd=None, env=None, fails=False):
    """The words of a command, which must succeed, or with `fails` fail."""
    command = [str(word) for word in command]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **(env or {})}, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if (done.returncode != 0) != fails:
        sys.exit(f"ended with {done.returncode}: {' '.join(command)}\n{done.stdout}")
    return done.stdout


def need(condition, words):
    if not condition:
        sys.exit(words)


def skip(words):
    print(f"SKIPPED: {words}")
    sys.exit(SKIPPED)


def configure(given, source, build, *more):
    """Configures a project with this build's compiler and generator."""
    run(given.cmake, "-G", given.generator, f"-DCMAKE_CXX_COMPILER={given.compiler}", "-DCMAKE_BUILD_TYPE=Debug",
        "-S", source, "-B", build, *more)


def version(source):
    for line in (source / "include/strata/version.hpp").read_text().splitlines():
        if line.startswith("#define STRATA_VERSION "):
            return line.split('"')[1]
    sys.exit("version.hpp names no version")
