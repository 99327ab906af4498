"""Breaks off training runs in the system calls that change files or read them, and looks at what is left.

    kills.py FOLDER_OF_THE_PROGRAMS [--program dncnn|ffdnet|super_resolution] [--kills N] [--failures N] [--seed N] [--every]

A run is killed in a call chosen at random, or a call is made to fail (no space, no permission, an error of the device, a
signal); --every takes them one after another instead. Then the run is resumed, now and then broken off again, until it
ends. It must end as a run that nothing befell: the same bytes in latest, best and the picture, the same log and curve.
A failure must be told in one line, with the path and the system's reason, and must leave no unfinished file.

Python's standard library and strace. Exits with 77, which CTest shows as skipped, where strace does not work or the program
is not built. The first thing printed is the seed.
"""
import argparse
import errno
import json
import os
import pathlib
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

CHANGES = ("openat", "write", "pwrite64", "fsync", "rename", "link", "unlink", "close", "fchmod", "ftruncate", "flock", "mkdir")
READS = ("openat", "read", "pread64", "newfstatat", "getdents64", "readlink", "dup")
ERRORS = ("ENOSPC", "EIO", "EINTR", "EACCES", "EDQUOT")

arguments = argparse.ArgumentParser()
arguments.add_argument("programs", type=pathlib.Path)
arguments.add_argument("--program", choices=("dncnn", "ffdnet", "super_resolution"), default="dncnn")
arguments.add_argument("--kills", type=int, default=0)
arguments.add_argument("--failures", type=int, default=0)
arguments.add_argument("--seed", type=int)
arguments.add_argument("--every", action="store_true")
options = arguments.parse_args()
seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 30)
chance = random.Random(seed)
NAME = f"{options.program}_train"
PROGRAM = options.programs / NAME


def skip(why):
    print(f"skipped: {why}")
    sys.exit(77)


def write_png(path, size, slope):
    rows = b"".join(b"\0" + bytes((x * slope + y * 11 + x * y) % 256 for x in range(size)) for y in range(size))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def command(root, out):
    small = ["--train-dir", root / "train", "--valid-dir", root / "valid", "--batch-size", 2, "--num-workers", 0,
             "--threads", 1, "--seed", 5, "--save-interval", 2, "--checkpoint-dir", out]
    if options.program == "dncnn":
        small += ["--depth", 8, "--width", 32, "--patch-size", 8, "--steps-per-epoch", 3, "--epochs", 3]
    else:
        small += ["--patch-size", 16, "--steps", 7, "--report-interval", 3]
    return [str(part) for part in [PROGRAM, *small]]


def run(line, inject=None):
    if inject:
        line = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={inject.split(':')[0]}", "-e", f"inject={inject}", *line]
    return subprocess.run(line, capture_output=True, text=True)


def result(out):
    """What a run leaves, without the times in it."""
    left = {}
    for name in ("latest.safetensors", "best.safetensors"):
        data = (out / name).read_bytes()
        length, = struct.unpack("<Q", data[:8])
        header = json.loads(data[8:8 + length])
        metadata = header["__metadata__"]
        for key in ("strata.checksum", "extra.seconds"):
            metadata.pop(key, None)
        if "extra.log" in metadata:
            metadata["extra.log"] = metadata["extra.log"].rpartition(",")[0]
        left[name] = (header, data[8 + length:])
    left["log.csv"] = [line.rpartition(",")[0] for line in (out / "log.csv").read_text().splitlines()]
    for name in ("curve.svg", "before_after.png"):
        left[name] = (out / name).read_bytes() if (out / name).exists() else None
    return left


def unfinished(out):
    return [path.name for path in out.iterdir() if ".partial" in path.name] if out.exists() else []


def calls(root, calls_of_interest, line):
    """Every (call, n, path) of a run with a path or an open file below root: the n-th such call of the program's first thread."""
    log = root / "strace.log"
    done = subprocess.run(["strace", "-f", "-qq", "-y", "-o", log, "-e", "trace=" + ",".join(sorted(set(calls_of_interest))), *line],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"FAILED: {done.stdout}{done.stderr}")
    counts, found, first = {}, [], None
    for text in log.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+)\s+(\w+)\(", text)
        if not match:
            continue
        first = first or match[1]
        if match[1] != first:
            continue
        counts[match[2]] = counts.get(match[2], 0) + 1
        if str(root) in text:
            found.append((match[2], counts[match[2]], re.search(r'[<"](/[^>"]*)', text)[1]))
    return found


def ends_of_rows(found):
    """The first and the last of calls of one kind on one file that follow one another: a checkpoint is a hundred writes."""
    return [call for i, call in enumerate(found)
            if not (0 < i < len(found) - 1 and found[i - 1][::2] == call[::2] == found[i + 1][::2])]


def any_of(found):
    """One of the calls at random, each kind as likely as the others: most are writes."""
    kind = chance.choice(sorted({call[0] for call in found}))
    return chance.choice([call[:2] for call in found if call[0] == kind])


def broken(out, line, call, number, error):
    """Runs with this call failing, or killed there when error is None. Returns what is wrong with how that went."""
    what = f"error={error}" if error else "signal=KILL"
    done = run(line, f"{call}:{what}:when={number}")
    if error is None or done.returncode == 0:
        return None
    said = done.stderr.strip()
    reason = os.strerror(getattr(errno, error))
    if done.returncode != 1 or not said.startswith(f"{NAME}: ") or reason not in said:
        return f"code {done.returncode}: {done.stdout[-300:]}{said}"
    lines = [text for text in said.splitlines() if "The checkpoint before it is still there" not in text]
    if len(lines) != 1:
        return f"{len(lines)} lines: {said}"
    if call != "unlink" and unfinished(out):
        return f"left {unfinished(out)}; {said}"
    return None


def main():
    if not PROGRAM.exists():
        skip(f"{PROGRAM} is not built")
    if shutil.which("strace") is None or run(["true"], "close:error=EIO:when=1000").returncode != 0:
        skip("strace does not work here")
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder).resolve()
        for name, count, size in (("train", 3, 20), ("valid", 2, 16)):
            (root / name).mkdir()
            for i in range(count):
                write_png(root / name / f"{i}.png", size, 3 + 4 * i)
        out = root / "out"
        line = command(root, out)
        changing = calls(root, CHANGES, line)
        expected = result(out)
        shutil.rmtree(out)
        reading = calls(root, CHANGES + READS, line)
        if result(out) != expected:
            sys.exit("FAILED: two runs that nothing befell differ")
        print(f"{len(changing)} calls change files, {len(reading)} touch them", flush=True)

        if options.every:
            plan = [(*call[:2], None) for call in ends_of_rows(changing)]
            plan += [(*call[:2], chance.choice(ERRORS)) for call in ends_of_rows(reading)]
        else:
            plan = [(*any_of(changing), None) for _ in range(options.kills)]
            plan += [(*any_of(reading), chance.choice(ERRORS)) for _ in range(options.failures)]
        problems = 0
        for call, number, error in plan:
            shutil.rmtree(out, ignore_errors=True)
            history = [f"{call} {number} {error or 'killed'}"]
            wrong = broken(out, line, call, number, error)
            again = [*line, "--resume"]
            while wrong is None and chance.random() < 0.3:
                call, number = any_of(changing)
                history.append(f"resumed, {call} {number} {error or 'killed'}")
                wrong = broken(out, again, call, number, error)
            if wrong is None:
                done = run(again)
                if done.returncode != 0:
                    wrong = f"resuming ended with {done.returncode}: {done.stderr}"
                elif left := unfinished(out):
                    wrong = f"left in the end: {left}"
                else:
                    got = result(out)
                    wrong = ", ".join(f"{name} differs" for name in expected if got[name] != expected[name]) or None
                    if wrong is None and ("best PSNR" not in done.stdout or "is gone" in done.stdout):
                        wrong = f"the last line is wrong: {done.stdout[-200:]}"
            if wrong:
                problems += 1
                print(f"FAILED: {'; '.join(history)}: {wrong}", flush=True)
        print(f"{len(plan)} runs broken off, {problems} problems")
        return 1 if problems or not plan else 0


if __name__ == "__main__":
    sys.exit(main())
