#!/usr/bin/env python3
"""Times Strata's convolutions against PyTorch's in the shapes that networks have, in turn, in one run. Needs torch.

    g++ -std=c++20 -O3 -DNDEBUG -march=native -I include benchmarks/peers/conv2d_server.cpp -o /tmp/conv2d_server -pthread
    export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456 OMP_NUM_THREADS=2
    NT=2 chrt -f 5 python benchmarks/peers/network_convolutions.py /tmp/conv2d_server [name of a group] [another server ...]

The shapes are those of DCGAN's discriminator and, transposed, its generator (64 x 64 pixels, 64 channels in the first layer), of
U-Net's transposed convolutions and of ResNet's strided ones; "deep" are 3 x 3 with many channels on few pixels, as at the bottom
of a U-Net or in a ResNet's last layers, "pointwise" the 1 x 1 of MobileNetV2 and NAFNet. The MALLOC variables spare PyTorch a page fault for every page of every result,
and the quicker of its two memory formats counts, for each kind by itself. Both sides take turns; a figure is the median of all,
the ratio PyTorch's over ours, and the last column the ratio of the minima. Before our turn there is a pause, in which PyTorch's
threads can stop spinning.

`train` is the sum of the three kinds. For a transposed convolution `fwd` is the gradient for the input of the convolution that it
is the adjoint of, and `dx` is that convolution.
"""
import os
import statistics
import subprocess
import sys
import time

import torch

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS", "0.05"))  # of one turn
KINDS = ("fwd", "dx", "dw")

# (batch, size, channels of the larger image, of the smaller one, kernel, stride, padding)
DCGAN = [(64, 3, 64), (32, 64, 128), (16, 128, 256), (8, 256, 512)]
GROUPS = {
    "dcgan": [(n, size, a, b, 4, 2, 1) for n in (64, 16) for size, a, b in DCGAN] + [(n, 4, 512, 1, 4, 1, 0) for n in (64, 16)],
    "unet": [(4, 256, 64, 128, 2, 2, 0), (4, 128, 128, 256, 2, 2, 0), (4, 64, 256, 512, 2, 2, 0), (4, 32, 512, 1024, 2, 2, 0)],
    "resnet": [(4, 224, 3, 64, 7, 2, 3), (16, 56, 64, 128, 3, 2, 1), (16, 28, 128, 256, 3, 2, 1), (16, 14, 256, 512, 3, 2, 1),
               (16, 56, 64, 128, 1, 2, 0), (16, 28, 128, 256, 1, 2, 0), (8, 64, 64, 64, 5, 2, 2)],
    "deep": [(1, 32, 128, 256, 3, 1, 1), (1, 32, 256, 256, 3, 1, 1), (1, 32, 512, 256, 3, 1, 1), (1, 16, 256, 512, 3, 1, 1),
             (1, 16, 512, 512, 3, 1, 1), (2, 8, 512, 512, 3, 1, 1), (128, 8, 256, 256, 3, 1, 1), (128, 4, 512, 512, 3, 1, 1)],
    "pointwise": [(1, size, a, b, 1, 1, 0) for size, a, b in ((128, 64, 128), (64, 128, 256), (32, 256, 512), (16, 512, 1024),
                                                              (8, 512, 1024), (7, 960, 320), (7, 160, 960), (14, 96, 576))],
}
TRANSPOSED = {"deep": (False,), "pointwise": (False,), "dcgan": (False, True), "unet": (True,), "resnet": (False,)}


class Server:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def times(self, kind, shape, repetitions):
        n, size, a, b, kernel, stride, padding = shape
        self.process.stdin.write(f"{kind} {n} {size} {a} {b} {kernel} {stride} {padding} 1 {repetitions}\n")
        self.process.stdin.flush()
        return [float(t) for t in self.process.stdout.readline().split()]


def theirs(kind, shape, transposed, memory_format):
    n, size, a, b, kernel, stride, padding = shape
    small = (size + 2 * padding - kernel) // stride + 1

    def random(*extents):
        return torch.randn(*extents).to(memory_format=memory_format)

    large, little, weight = random(n, a, size, size), random(n, b, small, small), random(b, a, kernel, kernel)
    x, dy = (little, large) if transposed else (large, little)
    bias, channels = (None, a) if transposed else (torch.randn(b), b)
    if kind == "fwd":
        if transposed:
            return lambda: torch.nn.functional.conv_transpose2d(x, weight, bias, stride=stride, padding=padding)
        return lambda: torch.nn.functional.conv2d(x, weight, bias, stride=stride, padding=padding)
    wanted = [True, False, False] if kind == "dx" else [False, True, not transposed]
    return lambda: torch.ops.aten.convolution_backward(dy, x, weight, [channels], [stride] * 2, [padding] * 2, [1, 1],
                                                       transposed, [0, 0], 1, wanted)


def milliseconds(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def measure(servers, shape, transposed, kind):
    """The times of PyTorch in its better format, and of each server."""
    our_kind = {"fwd": "dx", "dx": "fwd", "dw": "dw"}[kind] if transposed else kind
    calls = [theirs(kind, shape, transposed, memory_format) for memory_format in (torch.channels_last, torch.contiguous_format)]
    their_times, our_times = [[] for _ in calls], [[] for _ in servers]
    for call in calls:
        call()
    once = milliseconds(calls[0])
    repetitions = max(2, min(50, int(1e3 * SECONDS / once)))
    for _ in range(ROUNDS):
        for call, times in zip(calls, their_times):
            times += [milliseconds(call) for _ in range(repetitions)]
        time.sleep(0.1)
        for server, times in zip(servers, our_times):
            times += server.times(our_kind, shape, repetitions + 1)[1:]
    return min(their_times, key=statistics.median), our_times


def main():
    torch.set_num_threads(int(os.environ.get("NT", "2")))
    names = [name for name in sys.argv[1:] if name in GROUPS] or list(GROUPS)
    servers = [Server(program) for program in sys.argv[1:] if program not in GROUPS]
    print(f"PyTorch {torch.__version__}; ms are medians, GFLOP/s are of them")
    print("| group | images | channels | kernel | kind | Strata ms | GFLOP/s | PyTorch ms | ratio | of minima |\n" + "|---" * 10 + "|")
    for name in names:
        for transposed in TRANSPOSED[name]:
            for shape in GROUPS[name]:
                n, size, a, b, kernel, stride, padding = shape
                small = (size + 2 * padding - kernel) // stride + 1
                label = (f"| {name} | {n} of {small}² → {size}² | {b} → {a} | {kernel}×{kernel} s{stride} transposed" if transposed
                         else f"| {name} | {n} of {size}² → {small}² | {a} → {b} | {kernel}×{kernel} s{stride}")
                sums, flops = [[0.0] * 4 for _ in servers], 2e-6 * n * small * small * a * b * kernel * kernel
                for kind in KINDS + ("train",):
                    if kind != "train":
                        their, all_ours = measure(servers, shape, transposed, kind)
                        rows = [(statistics.median(ours), statistics.median(their), min(ours), min(their)) for ours in all_ours]
                        sums = [[a + b for a, b in zip(s, row)] for s, row in zip(sums, rows)]
                    for row in sums if kind == "train" else rows:
                        ours, theirs_ms, our_least, their_least = row
                        print(f"{label} | {kind} | {ours:.3f} | {(3 if kind == 'train' else 1) * flops / ours:.0f} | {theirs_ms:.3f} | "
                              f"{theirs_ms / ours:.2f} | {their_least / our_least:.2f} |", flush=True)


if __name__ == "__main__":
    main()
