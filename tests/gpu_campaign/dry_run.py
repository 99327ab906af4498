#!/usr/bin/env python3
"""The GPU campaign (scripts/gpu) without a GPU: its scripts with programs that only play their parts.

    dry_run.py REPOSITORY

One campaign in which all goes well, one on a machine without a driver, and one in which programs fail, hang and crash: each
time the short table must come, in time, and say what happened.
"""
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

DOCTEST = "[doctest] test cases:  3 |  3 passed | 0 failed | 0 skipped\n"
BENCH = "".join(f"strata\t{what}\t{size}\tbf16\tnative\t{mode}\t{ms}\t{ms}\t14\n" for what, size, mode, ms in (
    ("train", "128x40", "step", 4.0), ("train", "128x40", "queued", 3.5), ("train", "128x40", "graph", 3.0), ("infer", "1920x1080", "queued", 6.0)))
CHECKS = "".join(f"# replay check, {p}: loss of step 5 0.1 by calls, 0.1 by replays: equal\n" for p in ("bf16", "tf32", "fp32", "fp16"))
LOG = "epoch,loss,psnr\n1,0.04,25\n2,0.02,{psnr}\n"

# What a program does: prints `text`, ends with `code`; dncnn_train leaves a log.
PLAYER = """#!/usr/bin/env bash
if [[ " $* " == *" --list-test-cases "* ]]; then printf '[doctest] listing\\nfirst case\\nsecond case\\n===\\n'; exit; fi
cat "$0.txt"
{more}
exit {code}
"""
TRAIN = """while [ $# -gt 0 ]; do case $1 in --checkpoint-dir) folder=$2 ;; esac; shift; done
mkdir -p "$folder"; printf '{log}' >"$folder/log.csv"
"""


def play(folder, programs):
    binaries = folder / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    for name, (text, code, more) in programs.items():
        path = binaries / name
        path.write_text(PLAYER.format(code=code, more=more))
        (binaries / f"{name}.txt").write_text(text)
        path.chmod(0o755)


def campaign(scripts, programs, *parts, seconds=100, commands=None):
    """Runs the campaign; gives what it printed, its logs' names and how long it took."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for script in ("campaign.sh", "torch_side.py", "table.py", "training_options.sh"):
            shutil.copy(scripts / script, folder)
        (folder / "tests.txt").write_text("conv2d\nloss\n")
        (folder / "commit.txt").write_text("0123abc A commit\n")
        (folder / "reference").mkdir()
        (folder / "reference" / "cpu.csv").write_text(LOG.format(psnr=29))
        play(folder, programs)
        play(folder / "tools", commands or {})
        environment = dict(os.environ, OUT=str(folder / "out"), CAMPAIGN_SECONDS=str(seconds), CAMPAIGN_DRY="1",
                           PATH=f"{folder / 'tools' / 'bin'}:{os.environ['PATH']}")
        begin = time.monotonic()
        ran = subprocess.run(["bash", folder / "campaign.sh", *parts], env=environment, cwd=folder, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + 60)
        took = time.monotonic() - begin
        logs = {p.name: p.read_text() for p in (folder / "out").iterdir()}
        return ran.stdout, logs, took


def check(what, condition, text):
    if not condition:
        sys.exit(f"{what}\n{text}")
    print("ok:", what)


def well():
    return {
        "test_gpu": (DOCTEST, 0, ""), "test_gpu_network": (DOCTEST, 0, ""), "test_gpu_engine": (DOCTEST, 0, ""),
        "dncnn_train": ("", 0, TRAIN.format(log=LOG.format(psnr="29.1").replace("\n", "\\n"))),
        "cuda_kernels": ("copy 3000 GB/s\n64-64 3x3 bf16 0.1 ms\n", 0, ""),
        "device_network": (CHECKS + BENCH, 0, ""),
    }


def main():
    scripts = pathlib.Path(sys.argv[1]) / "scripts" / "gpu"
    tools = {"nvidia-smi": ("name, driver\\nA card, 1.2\n", 0, ""), "ncu": ("", 1, ""), "compute-sanitizer": ("ERROR SUMMARY: 0 errors\n", 0, "")}
    parts = ("facts", "tests", "engines", "training", "kernels", "network", "libraries", "sanitizer")

    text, logs, _ = campaign(scripts, well(), *parts, commands=tools)
    check("all goes well", "not ok:\nnone" in text and "FAILED" not in text and "TIMEOUT" not in text, text)
    check("replays are counted", "4 of 4 replay checks equal" in text, text)
    check("the table has the medians", "4.000   3.500   3.000" in text, text)
    check("losses stand beside the CPU's", "fp16" in text and "furthest from the CPU's: 0.000 %" in text, text)
    check("logs are left", {"summary.txt", "facts.txt", "tests.log", "training.log", "kernels.txt", "bench.tsv", "sanitizer.log"} <= set(logs), logs.keys())

    missing = {name: ("SKIPPED: no NVIDIA driver\n", 77, "") for name in well()}
    text, _, _ = campaign(scripts, missing, *parts, commands={"compute-sanitizer": tools["compute-sanitizer"]})
    check("without a driver all is skipped", "skipped" in text and "no NVIDIA driver" in text and "no times" in text and "no run on the device ended" in text, text)

    broken = well() | {
        "test_gpu": ("ERROR: CHECK( a == b )\nvalues 1 == 2\n", 1, ""),  # each case is run again by itself
        "test_gpu_network": ("", 0, "kill -SEGV $$"),
        "dncnn_train": ("dncnn_train: out of memory\n", 1, ""),
        "device_network": ("strata\ttrain\t", 0, "sleep 1000"),
    }
    text, logs, took = campaign(scripts, broken, "tests", "training", "network", seconds=15, commands=tools)
    check("a failed program is named, with its cases", "test_gpu */conv2d" in text and "FAILED (1)" in text and "first case" in text, text)
    check("a crash is named", "FAILED (139)" in text, text)
    check("a training that failed says why", "out of memory" in text, text)
    check("what hangs is ended in time", took < 30 and bool(re.search(r"own kernels: (TIMEOUT|no time);", text)), f"{took} s\n{text}")
    end = text[text.rindex("not ok:"):]
    check("what failed is listed last", all(re.search(p, end) for p in ("test_gpu_network", "fp16 FAILED", "own kernels: (TIMEOUT|no time)")), end)
    check("the table comes last all the same", any("the short table" in line for line in text.splitlines()[-20:]), text)


if __name__ == "__main__":
    main()
