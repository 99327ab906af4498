#!/usr/bin/env python3
"""Times Strata against PyTorch, onnxruntime, ncnn and dlib, and writes a table and a plot.

    benchmarks/run_all.py                              # makes a Python environment in build/, about half an hour
    benchmarks/run_all.py --python VENV/bin/python     # one that has peers/requirements.txt
    benchmarks/run_all.py --only 'dncnn17 train' --rounds 3
    benchmarks/run_all.py --render                     # table and plot of the results that are there

Each piece of work is measured by peers/compare.py: all sides in turn, in one run, medians. Strata's side is compiled from
the tree this file lies in. Results gather in build/benchmarks/results.json, each with the build and the command it is of, so that
a run can be broken off and continued with --only; the table goes to benchmarks/PEERS.md and the plot to benchmarks/peers.svg.
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks"
sys.path.insert(0, str(HERE / "peers"))
from networks import NETWORKS  # noqa: E402

TORCH = ["torch:channels_last", "torch:contiguous"]
RUN = ["onnxruntime", "ncnn"]
TITLES = {"dncnn17": "DnCNN-17×64", "dncnn8x32": "DnCNN-8×32", "dncnn17x48": "DnCNN-17×48", "dncnn17x96": "DnCNN-17×96",
          "dncnn17rgb": "DnCNN-17×64, RGB", "vdsr": "VDSR", "srcnn": "SRCNN 9-1-5"}


def all_work(compile_too, dlib):
    """(kind, network, (n, h, w), sides, extra): kind is train, infer; extra names what is special."""
    compiled = ["torch:compile"] if compile_too else []
    yield from (("train", "dncnn17", (n, 40, 40), ["strata", *TORCH, *compiled, *(["dlib"] if dlib and n == 16 else [])], "")
                for n in (16, 64, 128))
    yield from (("infer", "dncnn17", (1, h, w), ["strata", *TORCH, *compiled, *RUN], "")
                for h, w in ((40, 40), (256, 256), (512, 512), (321, 481)))
    for network in list(NETWORKS)[1:]:
        yield "train", network, (64, 40, 40), ["strata", *TORCH], ""
        yield "infer", network, (1, 256, 256), ["strata", *TORCH, *RUN], ""
    yield "train", "dncnn17", (16, 40, 40), ["strata", *TORCH], "avx2"
    yield "infer", "dncnn17", (1, 256, 256), ["strata", *TORCH], "avx2"


def key_of(kind, network, size, extra):
    return " ".join([network, kind, "x".join(map(str, size)), extra]).strip()


# What is run


def make_environment(folder):
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "peers" / "requirements.txt"], check=True)
    return str(python)


def build(name, source, flags, libraries=()):
    """Compiles a server; None, and a word about it, when that fails."""
    program = BUILD / name
    command = [os.environ.get("CXX", "c++"), "-O3", "-DNDEBUG", *flags, str(source), "-o", str(program), "-pthread", *libraries]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name} cannot be built: " + next(iter(done.stderr.splitlines()), "no word from the compiler"))
        return None
    return program


def compare(options, servers, kind, network, size, sides, extra):
    command = [options.python, HERE / "peers" / "compare.py", "--server", servers["avx2" if extra == "avx2" else "native"],
               "--work", kind, "--network", network, "--size", *size, "--sides", *sides, "--threads", options.threads,
               "--rounds", options.rounds, "--seconds", options.seconds, "--python", options.python]
    command += ["--dlib", servers["dlib"]] if servers["dlib"] else []
    command += ["--isa", "avx2"] if extra == "avx2" else []
    done = subprocess.run(shlex.split(options.under) + list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        return {side: {"error": (done.stderr.strip().splitlines() or ["it failed"])[-1]} for side in sides}
    return json.loads(done.stdout)


def worker(options, servers, code):
    """A measurement of its own (the functions below), under the same wrapper, as JSON."""
    command = shlex.split(options.under) + [sys.executable, str(HERE / "run_all.py"), "--measure", code, "--python",
                                            options.python, "--server", str(servers["native"])]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr.strip().splitlines()[-1]}


def sides_alone(options, threads=2):
    from compare import Process
    yield "strata", lambda n=threads: Process([options.server], n)
    yield "torch", lambda n=threads: Process([options.python, str(HERE / "peers" / "torch_server.py")], n)


def measure_memory(options):
    """Peak resident MB of three training steps of DnCNN-17, batch 128, with and without what the start takes."""
    result = {}
    for side, start in sides_alone(options):
        process = start()
        process.ask("train dncnn17 1 8 8 1 channels_last")
        before = process.peak_megabytes()
        process.ask("train dncnn17 128 40 40 3 channels_last")
        result[side] = {"peak": process.peak_megabytes(), "start": before}
        process.close()
    return result


def measure_start(options):
    """Seconds from the start of the process until a training step of DnCNN-17, batch 128, is done, less a usual step."""
    result = {}
    for side, start in sides_alone(options):
        seconds = []
        for _ in range(3):
            begin = time.perf_counter()
            process = start()
            process.ask("train dncnn17 128 40 40 1 channels_last")
            until = time.perf_counter() - begin
            seconds.append(until - 1e-3 * statistics.median(process.ask("train dncnn17 128 40 40 3 channels_last")))
            process.close()
        result[side] = statistics.median(seconds)
    return result


def measure_threads(options):
    """How many times faster two threads are than one, in turn, by work."""
    result = {}
    for work in ("train dncnn17 16 40 40", "infer dncnn17 1 256 256"):
        result[work] = {}
        for side, start in sides_alone(options):
            processes = {n: start(n) for n in (1, 2)}
            times = {1: [], 2: []}
            if side == "strata":
                processes[1].ask("threads 1"), processes[2].ask("threads 2")
            for round in range(6):
                for n, process in processes.items():
                    processes[3 - n].stop()
                    answer = process.ask(f"{work} 3 channels_last")
                    times[n] += answer if round > 0 else []
            for process in processes.values():
                process.close()
            result[work][side] = statistics.median(times[1]) / statistics.median(times[2])
    return result


MEASUREMENTS = {"memory": measure_memory, "start": measure_start, "threads": measure_threads}


# What is written


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return "unknown processor"


def median(result, side):
    return statistics.median(result[side]["ms"]) if "ms" in result.get(side, {}) else None


def title(kind, network, size, extra):
    n, h, w = size
    what = f"training, batch {n} of {h}×{w}" if kind == "train" else f"inference, {w}×{h}"
    return f"{TITLES[network]}, {what}" + (" (AVX2 only)" if extra == "avx2" else "")


def rows(results):
    """(title, ours in ms, GFLOP/s, of peak, {peer: ratio}, the better format, machine, build) of all that was measured."""
    peaks = {}  # the most that was seen with the same instructions: the processor may have been slow while a row's was measured
    for key, result in results["work"].items():
        peaks[key.endswith("avx2")] = max(peaks.get(key.endswith("avx2"), 0), result.get("machine", {}).get("peak", 0))
    for kind, network, size, sides, extra in all_work(True, True):
        result = results["work"].get(key_of(kind, network, size, extra))
        ours = result and median(result, "strata")
        if not ours:
            continue
        n, h, w = size
        gflops = NETWORKS[network].operations(n, h, w, kind == "train") / ours * 1e-6
        peers = {side: median(result, side) / ours for side in result if side not in ("strata", "machine") and median(result, side)}
        formats = {side: ratio for side, ratio in peers.items() if side in TORCH}
        ratios = {"PyTorch": min(formats.values())} if formats else {}
        ratios |= {"torch.compile" if side == "torch:compile" else side: r for side, r in peers.items() if side not in formats}
        best = min(formats, key=formats.get).split(":")[1] if formats else ""
        yield (title(kind, network, size, extra), ours, gflops, gflops / peaks[extra == "avx2"], ratios, best, result["machine"],
               result["build"])


def table(results):
    rows_ = list(rows(results))
    machines = [row[6] for row in rows_]
    span = lambda what, digits=0: "{:.{d}f} to {:.{d}f}".format(min(m[what] for m in machines), max(m[what] for m in machines), d=digits)
    peers = ["PyTorch", "torch.compile", "onnxruntime", "ncnn", "dlib"]
    runs = [f"- Build {name}: `{run['command']}`, {run['date']}, {run['processor']}, {run['threads']} threads, {run['versions']}. "
            f"{run['note']}".strip() for name, run in results["runs"].items()]
    lines = ["# Strata beside its peers", "", *runs, "",
             "Each row is one run in which the sides were timed in turn; figures are of medians. A peer's column says how many "
             "times longer it takes than Strata. PyTorch: the better of channels_last and contiguous, with its allocator tuned; "
             "torch.compile: channels_last. All in float32. Inference has batch norm folded. GFLOP/s are effective, those of a direct "
             "convolution (training: three times the forward's), which Winograd's algorithm can exceed. During the runs the "
             f"machine reached {span('peak')} GFLOP/s of multiply-adds (of peak: of the most; rows marked AVX2: that of AVX2), copied "
             f"{span('copy')} GB/s, and needed {span('latency')} ns from core to core.", "",
             "| work | Strata ms | GFLOP/s | of peak | " + " | ".join(peers) + " | PyTorch's better format | build |",
             "|---" + "|---:" * (len(peers) + 3) + "|---|---|"]
    for name, ours, gflops, of_peak, ratios, best, _, build_ in rows_:
        cells = [f"{ratios[p]:.2f}" if p in ratios else "" for p in peers]
        lines.append(f"| {name} | {ours:.2f} | {gflops:.0f} | {of_peak:.2f} | " + " | ".join(cells) + f" | {best} | {build_} |")
    lines += ["", "![How many times longer the peers take](peers.svg)", ""]
    alone = results.get("alone", {})
    if "peak" in alone.get("memory", {}).get("torch", {}):
        m = alone["memory"]
        lines += [f"**Memory** of training DnCNN-17×64, batch 128 of 40×40: {m['strata']['peak']:.0f} MB resident at most, PyTorch "
                  f"(channels_last) {m['torch']['peak']:.0f} MB: {m['strata']['peak'] / m['torch']['peak']:.2f} times as much. "
                  f"Of these {m['strata']['start']:.0f} and {m['torch']['start']:.0f} MB are there after a step on 8×8 pixels. (Build {m['build']}.)", ""]
    if "torch" in alone.get("start", {}):
        s = alone["start"]
        lines += [f"**Start** of the process to the first training step (batch 128, random data): {s['strata']:.2f} s, PyTorch {s['torch']:.2f} s. (Build {s['build']}.)", ""]
    if "error" not in alone.get("threads", {"error": ""}):
        lines += ["**Two threads** instead of one: " + "; ".join(
            f"{work.split()[0]} of DnCNN-17×64 ({work.split(maxsplit=2)[2].replace(' ', '×')}) {ratio['strata']:.2f} times faster, PyTorch {ratio['torch']:.2f}"
            for work, ratio in alone["threads"].items() if work != "build").replace("train", "training").replace("infer ", "inference ")
            + f". (Build {alone['threads']['build']}.)", ""]
    failures = [f"- {key}, {side}: {value['error']}" for key, result in results["work"].items() for side, value in result.items()
                if isinstance(value, dict) and "error" in value]
    return "\n".join(lines + (["Not measured:", *failures, ""] if failures else []))


COLOURS = {"PyTorch": "#d9480f", "torch.compile": "#f59f00", "onnxruntime": "#1971c2", "ncnn": "#2f9e44", "dlib": "#862e9c"}


def plot(results):
    """Bars: how many times longer each peer takes than Strata, whose own time is the line at 1."""
    rows_ = list(rows(results))
    cap = 6.0  # longer bars are cut, with their number beside them
    left, width, bar, gap = 330, 460, 9, 10
    x = lambda ratio: left + min(ratio, cap) / cap * width
    y, body = 58, []
    for name, _, _, _, ratios, *_ in rows_:
        height = bar * len(ratios)
        body.append(f'<text x="{left - 8}" y="{y + height / 2 + 4}" text-anchor="end">{name}</text>')
        for peer, ratio in ratios.items():
            body.append(f'<rect x="{left}" y="{y}" width="{x(ratio) - left:.1f}" height="{bar - 1}" fill="{COLOURS[peer]}"/>'
                        f'<text x="{x(ratio) + 4:.1f}" y="{y + bar - 1.5}" class="small">{ratio:.1f}</text>')
            y += bar
        y += gap
    grid = "".join(f'<line x1="{x(i)}" x2="{x(i)}" y1="50" y2="{y}" stroke="{"#000" if i == 1 else "#ddd"}"/>'
                   f'<text x="{x(i)}" y="46" text-anchor="middle" class="small">{i}×</text>' for i in range(int(cap) + 1))
    legend = "".join(f'<rect x="{left + 95 * i}" y="12" width="10" height="10" fill="{colour}"/>'
                     f'<text x="{left + 14 + 95 * i}" y="21">{peer}</text>' for i, (peer, colour) in enumerate(COLOURS.items()))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {y + 10}" font-family="sans-serif" font-size="12">'
            f'<style>.small{{font-size:9px}}</style><rect width="100%" height="100%" fill="#fff"/>'
            f'<text x="8" y="21" font-weight="bold">Time of the peers, Strata = 1×</text>{grid}{legend}{"".join(body)}</svg>\n')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="of an environment with peers/requirements.txt [one is made in build/]")
    parser.add_argument("--only", default="", help="a regular expression over names such as 'dncnn17 train 16x40x40', 'memory'")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one side in one round")
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--under", default="", metavar="COMMAND", help="runs each measurement, for example 'chrt -f 5'")
    parser.add_argument("--note", default="", help="a sentence about the machine for the head of the table")
    parser.add_argument("--output", type=pathlib.Path, default=HERE, help="folder of PEERS.md and peers.svg")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--measure", choices=MEASUREMENTS, help=argparse.SUPPRESS)
    parser.add_argument("--server", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(MEASUREMENTS[options.measure](options)))
        return

    BUILD.mkdir(parents=True, exist_ok=True)
    file = BUILD / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {"work": {}, "alone": {}, "runs": {}}
    if not options.render:
        options.python = options.python or make_environment(BUILD / "venv")
        include = ["-std=c++20", f"-I{HERE.parent / 'include'}", "-isystem", os.environ.get("STB_INCLUDE", "/usr/include/stb")]
        servers = {"native": build("network_server", HERE / "peers" / "network_server.cpp", [*include, "-march=native"]),
                   "avx2": build("network_server_avx2", HERE / "peers" / "network_server.cpp", [*include, "-march=x86-64-v3"]),
                   "dlib": build("dlib_server", HERE / "peers" / "dlib_server.cpp", ["-std=c++17", "-march=native"],
                                 ["-ldlib", "-lblas", "-llapack"])}
        if not servers["native"]:
            sys.exit(1)
        versions = subprocess.run([options.python, "-c", "import torch, onnxruntime, ncnn; print(f'PyTorch {torch.__version__}, "
                                   "onnxruntime {onnxruntime.__version__}, ncnn {ncnn.__version__}')"], capture_output=True, text=True)
        commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        name = commit.stdout.strip()
        results["runs"][name] = {
            "command": f"benchmarks/run_all.py --rounds {options.rounds} --seconds {options.seconds}"
                       + (" --no-compile" if options.no_compile else ""), "note": options.note,
            "date": f"{datetime.date.today()}", "processor": processor(), "threads": options.threads,
            "versions": versions.stdout.strip() + (", dlib" if servers["dlib"] else "")}
        for work in all_work(not options.no_compile, servers["dlib"]):
            key = key_of(*work[:3], work[4])
            if not re.search(options.only, key):
                continue
            begin = time.time()
            results["work"][key] = compare(options, servers, *work) | {"build": name}
            file.write_text(json.dumps(results))
            medians = {side: median(results["work"][key], side) for side in work[3]}
            print(f"{key:34} {time.time() - begin:5.0f} s  " + "  ".join(
                f"{side} {ms:.2f}" if ms else f"{side} failed" for side, ms in medians.items()), flush=True)
        for what in MEASUREMENTS:
            if re.search(options.only, what):
                results["alone"][what] = worker(options, servers, what) | {"build": name}
                file.write_text(json.dumps(results))
                print(what, results["alone"][what], flush=True)
    kept = {result["build"] for part in ("work", "alone") for result in results[part].values()}
    results["runs"] = {name: run for name, run in results["runs"].items() if name in kept}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "PEERS.md").write_text(table(results))
    (options.output / "peers.svg").write_text(plot(results))
    print(f"wrote {options.output / 'PEERS.md'} and {options.output / 'peers.svg'}")


if __name__ == "__main__":
    main()
