#!/usr/bin/env python3
"""What is left of a program's speed where it shares its processors: with others like it, and with threads of its own.

    cmake --build build/release --target network_server
    benchmarks/fair_share.py build/release/bin/network_server

First one instance on two processors, then four at once; the fair share of each is a quarter of the first one's speed. Then one
instance on one processor, with one thread and with many. Each figure is the median of rounds in which all cases take turns.
On a machine that does other work meanwhile, all figures are of what is left of it.
"""
import argparse
import os
import statistics
import subprocess
import time


class Server:
    def __init__(self, program, processors, threads):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=lambda: os.sched_setaffinity(0, processors))
        if threads:
            self.answer(self.ask(f"threads {threads}"))

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self, _=None):
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the server has ended")
        return line

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def seconds(servers, work, repetitions):
    """Until each of them has done the work, all beginning at once."""
    start = time.monotonic()
    for server in servers:
        server.ask(f"{work} {repetitions}")
    times = []
    for server in servers:
        server.answer()
        times.append(time.monotonic() - start)
    return times


def measure(cases, work, least, rounds):
    """cases: lists of servers. For each case its times, one for each round."""
    for servers in cases:
        seconds(servers, work, 1)
    one = min(seconds(cases[0], work, 1)[0] for _ in range(3))
    repetitions = max(1, round(least / one))
    times = [[] for _ in cases]
    for i in range(rounds):
        order = list(enumerate(cases))
        for at, servers in order if i % 2 == 0 else reversed(order):
            times[at].append(max(seconds(servers, work, repetitions)))
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", help="the program network_server of this folder")
    parser.add_argument("--work", default="infer", choices=["infer", "train"])
    parser.add_argument("--network", default="dncnn17")
    parser.add_argument("--size", nargs=3, type=int, default=[1, 256, 256], metavar=("N", "H", "W"))
    parser.add_argument("--processors", type=int, default=2, help="that the instances share [2]")
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="of each instance [all it may use]")
    parser.add_argument("--many", type=int, nargs="*", default=[16, 64], help="threads on one processor [16 64]")
    parser.add_argument("--seconds", type=float, default=1, help="of work in each measurement of one instance [1]")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    work = " ".join([options.work, options.network, *map(str, options.size)])
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < options.processors:
        raise SystemExit(f"there are {len(usable)} processors, wanted {options.processors}")

    shared = usable[:options.processors]
    together = [Server(options.server, shared, options.threads) for _ in range(options.instances)]
    alone, all_of_them = measure([together[:1], together], work, options.seconds, options.rounds)
    shares = [options.instances * a / b for a, b in zip(alone, all_of_them)]
    print(f"{work}, {options.instances} instances on {options.processors} processors: "
          f"{statistics.median(shares):.2f} of their fair share (rounds: {min(shares):.2f} to {max(shares):.2f})")
    for server in together:
        server.close()

    counts = [1, *options.many]
    servers = [Server(options.server, usable[:1], threads) for threads in counts]
    times = measure([[server] for server in servers], work, options.seconds, options.rounds)
    for threads, of_many in list(zip(counts, times))[1:]:
        slower = [many / one for many, one in zip(of_many, times[0])]
        print(f"{work}, {threads} threads on one processor: {statistics.median(slower):.2f} times the time of one thread "
              f"(rounds: {min(slower):.2f} to {max(slower):.2f})")
    for server in servers:
        server.close()


if __name__ == "__main__":
    main()
