#!/usr/bin/env python3
"""Samples per second of Strata's DataLoader and PyTorch's, in turn: decode, crop, orientation, noise, batches of 128.

    g++ -std=c++20 -O3 -march=native -I include -isystem /usr/include/stb benchmarks/bench_loader.cpp -o bench_loader -pthread
    python benchmarks/peers/loader.py ./bench_loader Train400

Both from files (each image decoded whenever it is asked for) and from memory (decoded once).
"""
import argparse
import statistics
import subprocess
import sys
import time

import torch

from noisy_patches import NoisyPatches


def theirs(folder, in_memory, workers, samples, batch):
    """Of one epoch, workers kept; the first batch, which waits for the workers to start, does not count."""
    data = NoisyPatches(folder, samples, in_memory=in_memory)
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True, num_workers=workers, drop_last=True,
                                         persistent_workers=workers > 0)
    while True:
        batches, start = 0, None
        for batches, _ in enumerate(loader):
            start = start or time.perf_counter()
        yield batches * batch / (time.perf_counter() - start)


def ours(program, folder, in_memory, workers, samples, batch):
    command = [program, folder, "memory" if in_memory else "files", workers, samples, batch]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    while True:
        process.stdin.write("epoch\n")
        yield float(process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="bench_loader")
    parser.add_argument("folder", help="of PNG images of one size or more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("source   Strata samples/s   PyTorch samples/s   ratio")
    for in_memory in (False, True):
        peers = (theirs(options.folder, in_memory, options.workers, 64 * options.batch if in_memory else 24 * options.batch, options.batch),
                 ours(options.program, options.folder, in_memory, options.workers, (512 if in_memory else 128) * options.batch, options.batch))
        rates = ([], [])
        for round in range(options.rounds + 1):
            for peer, list_ in zip(peers, rates):
                rate = next(peer)
                if round > 0:  # the first starts workers and fills caches
                    list_.append(rate)
        their, our = map(statistics.median, rates)
        print(f"{'memory' if in_memory else 'files':8} {our:16.0f} {their:19.0f} {our / their:7.1f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
