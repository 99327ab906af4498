#!/usr/bin/env python3
"""Times one piece of work on several sides in turn and prints a line of JSON: the milliseconds of every repetition by side.

    compare.py --server network_server --work train --network dncnn17 --size 16 40 40 --sides strata torch:channels_last

While one side is timed the others' processes are stopped, so that threads which wait by spinning disturb nobody. A side
that fails gives an error text in place of its times.
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# A fresh page costs more than arithmetic on it: spare PyTorch a page fault for every page of every result.
TUNED_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
                   "MALLOC_TOP_PAD_": "268435456"}
LIMITED = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}}


class Process:
    """A server: one line asked, one line answered."""

    def __init__(self, command, threads, isa=None):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
        if "torch_server.py" in command[-1]:
            environment |= TUNED_ALLOCATOR | LIMITED.get(isa, {})
        if "dlib" in command[-1]:
            environment["OPENBLAS_NUM_THREADS"] = str(threads)
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, bufsize=1, env=environment, cwd=HERE)
        self.stopped = False

    def ask(self, line):
        self.go_on()
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            words = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(words[-1] if words else "it ended without a word")
        return [float(word) for word in answer.split()]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGSTOP)
            self.stopped = True

    def go_on(self):
        if self.stopped:
            self.process.send_signal(signal.SIGCONT)
            self.stopped = False

    def peak_megabytes(self):
        """The most memory that was resident so far."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def close(self):
        self.go_on()
        if self.process.poll() is None:
            self.process.communicate()


def open_side(side, options):
    kind = side.split(":")[0]
    if kind == "strata":
        process = Process([options.server], options.threads)
        process.ask(f"threads {options.threads}")
        return process
    if kind == "dlib":
        return Process([options.dlib], options.threads)
    return Process([options.python, str(HERE / f"{kind}_server.py")], options.threads, options.isa)


def measure(options):
    """{side: {"ms": [...]}} or {side: {"error": text}}; beside them "machine"."""
    processes, results = {}, {}
    work = f"{options.work} {options.network} {' '.join(map(str, options.size))}"

    def ask(side, repetitions):
        kind, _, variant = side.partition(":")
        if kind not in processes:
            processes[kind] = open_side(side, options)
        for other, process in processes.items():
            if other != kind:
                process.stop()
        return processes[kind].ask(f"{work} {repetitions} {variant or '-'}")

    repetitions = {}
    for side in options.sides:
        try:
            ask(side, 1)  # plans memory, compiles
            repetitions[side] = max(1, min(200, int(1e3 * options.seconds / statistics.median(ask(side, 2)))))
            results[side] = {"ms": []}
        except Exception as error:
            results[side] = {"error": str(error)}
    for _ in range(options.rounds):
        for side in repetitions:
            if "ms" in results[side]:
                try:
                    results[side]["ms"] += ask(side, repetitions[side])
                except Exception as error:
                    results[side] = {"error": str(error)}
    if "ms" in results.get("strata", {}):
        processes["strata"].ask(f"threads {options.threads}")
        results["machine"] = {what: processes["strata"].ask(what)[0] for what in ("peak", "copy", "latency")}
    for process in processes.values():
        process.close()
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="Strata's network_server")
    parser.add_argument("--dlib", help="dlib_server")
    parser.add_argument("--python", default=sys.executable, help="with torch, onnxruntime, ncnn")
    parser.add_argument("--work", choices=("train", "infer"), required=True)
    parser.add_argument("--network", required=True)
    parser.add_argument("--size", type=int, nargs=3, metavar=("N", "H", "W"), required=True)
    parser.add_argument("--sides", nargs="+", required=True,
                        help="strata, torch:contiguous, torch:channels_last, torch:compile, onnxruntime, ncnn, dlib")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--isa", choices=LIMITED, help="limits PyTorch; give a --server compiled for the same")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one side in one round")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
