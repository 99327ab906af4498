"""Times Strata's convolutions against PyTorch's, in turn, in one run. Needs torch.

    g++ -std=c++20 -O2 -march=native -I include benchmarks/peers/conv2d_server.cpp -o /tmp/conv2d_server -pthread
    export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456 OMP_NUM_THREADS=2
    NT=2 python benchmarks/peers/conv2d.py /tmp/conv2d_server 16-16,32-32,64-64,128-128,256-256 [kernel] [stride] [dilation]

The MALLOC variables spare PyTorch a page fault for every page of every result. Its better memory format counts. A ratio is
PyTorch's median over ours; before our turn there is a pause, in which PyTorch's threads can stop spinning.
"""
import os
import statistics
import subprocess
import sys
import time

import torch

ROUNDS = int(os.environ.get("ROUNDS", "7"))
torch.set_num_threads(int(os.environ.get("NT", "2")))
server = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
pairs = [tuple(map(int, pair.split("-"))) for pair in sys.argv[2].split(",")]
kernel = int(sys.argv[3]) if len(sys.argv) > 3 else 3
stride = int(sys.argv[4]) if len(sys.argv) > 4 else 1
dilation = int(sys.argv[5]) if len(sys.argv) > 5 else 1
padding = dilation * (kernel // 2)


def ours(kind, n, size, channels, out, repetitions):
    server.stdin.write(f"{kind} {n} {size} {channels} {out} {kernel} {stride} {padding} {dilation} {repetitions}\n")
    server.stdin.flush()
    return [float(time) for time in server.stdout.readline().split()]


def theirs(kind, n, size, channels, out, memory_format):
    x = torch.randn(n, channels, size, size).to(memory_format=memory_format)
    weight = torch.randn(out, channels, kernel, kernel).to(memory_format=memory_format)
    small = (size + stride - 1) // stride
    dy = torch.randn(n, out, small, small).to(memory_format=memory_format)
    bias = torch.randn(out)
    if kind == "fwd":
        return lambda: torch.nn.functional.conv2d(x, weight, bias, stride=stride, padding=padding, dilation=dilation)
    wanted = [True, False, False] if kind == "dx" else [False, True, True]
    return lambda: torch.ops.aten.convolution_backward(dy, x, weight, [out], [stride] * 2, [padding] * 2, [dilation] * 2,
                                                       False, [0, 0], 1, wanted)


def milliseconds(call):
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


print("channels    batch  size  kind    ours ms   PyTorch ms   ratio   GFLOP/s (as of a direct convolution)")
with torch.no_grad():
    for channels, out in pairs:
        for n, size in ((16, 40), (1, 256)):
            for kind in ("fwd", "dx", "dw"):
                calls = [theirs(kind, n, size, channels, out, format)
                         for format in (torch.channels_last, torch.contiguous_format)]
                for call in calls:
                    call()
                repetitions = max(1, min(40, int(40 / milliseconds(calls[0]))))
                ours(kind, n, size, channels, out, 2)
                our_times, their_times = [], [[] for _ in calls]
                for _ in range(ROUNDS):
                    for call, times in zip(calls, their_times):
                        times += [milliseconds(call) for _ in range(repetitions)]
                    time.sleep(0.25)
                    our_times += ours(kind, n, size, channels, out, repetitions)
                our, their = statistics.median(our_times), min(map(statistics.median, their_times))
                flops = 2 * n * ((size + stride - 1) // stride) ** 2 * channels * out * kernel * kernel
                print(f"{channels:4}->{out:<4} {n:6} {size:5}  {kind:4} {our:10.3f} {their:12.3f} {their / our:7.2f} "
                      f"{flops / our / 1e6:9.0f}", flush=True)
