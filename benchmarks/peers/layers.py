#!/usr/bin/env python3
"""Single layers in Strata and PyTorch, on two threads: 64 channels, float32, forward and forward with backward.

    export MALLOC_MMAP_THRESHOLD_=2000000000 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_TOP_PAD_=268435456
    benchmarks/peers/layers.py                     # wants torch

The MALLOC variables spare PyTorch a page fault for every page of every result, and the quicker of its two memory formats
counts. Both take turns, three times each; the table has the medians of all.
"""
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
from torch import nn

HERE = pathlib.Path(__file__).resolve().parent


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


LAYERS = {
    "depthwise3": (nn.Conv2d(64, 64, 3, padding=1, groups=64), 128), "depthwise7": (nn.Conv2d(64, 64, 7, padding=3, groups=64), 128),
    "group_norm": (nn.GroupNorm(8, 64), 128), "instance_norm": (nn.InstanceNorm2d(64), 128),
    "layer_norm": (LayerNorm2d(64, eps=1e-6), 128), "nearest": (nn.Upsample(scale_factor=2), 64),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), 64), "gelu": (nn.GELU(), 128), "elu": (nn.ELU(), 128),
    "hardswish": (nn.Hardswish(), 128), "mish": (nn.Mish(), 128),
}


def median_ms(work):
    work()
    times = []
    for _ in range(15):
        start = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def time_torch(layer, size):
    best = [float("inf")] * 2
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(4, 64, size, size).contiguous(memory_format=memory_format)
        watched = x.clone().requires_grad_()

        def forward():
            with torch.no_grad():
                layer(x)

        def both():
            watched.grad = None
            layer.zero_grad()
            layer(watched).sum().backward()

        best = [min(a, b) for a, b in zip(best, (median_ms(forward), median_ms(both)))]
    return best


def main():
    torch.set_num_threads(2)
    ours, theirs = {name: [] for name in LAYERS}, {name: [] for name in LAYERS}
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "layer_times")
        subprocess.run(["g++", "-std=c++20", "-O3", "-DNDEBUG", "-march=native", f"-I{HERE.parent.parent / 'include'}",
                        HERE / "layer_times.cpp", "-o", program, "-pthread"], check=True)
        for _ in range(3):
            for line in subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines():
                name, *times = line.split()
                ours[name].append([float(t) for t in times])
            for name, (layer, size) in LAYERS.items():
                theirs[name].append(time_torch(layer, size))
    print(f"PyTorch {torch.__version__}")
    print("| layer | Strata, ms | PyTorch, ms | ratio | with backward | PyTorch | ratio |\n|---|---|---|---|---|---|---|")
    for name in LAYERS:
        columns = []
        for part in (0, 1):
            a, b = (statistics.median(times[part] for times in all_times[name]) for all_times in (ours, theirs))
            columns += [f"{a:.2f}", f"{b:.2f}", f"{b / a:.1f}"]
        print(f"| {name} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
