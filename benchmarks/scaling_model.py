#!/usr/bin/env python3
"""A model, no measurement, of training on 2 to 1,024 ranks: counted bytes, measured step times, data sheets' bandwidths.

    benchmarks/scaling_model.py [--plot benchmarks/scaling_model.svg]          # prints the table

Each rank trains on a batch of the same size, as one process does (weak scaling). A step then takes

    step + exposed,   exposed = stages * latency + (bytes that leave at the end, or all) / bandwidth

where 2 log2(ranks) stages send 2 (1 - 1 / ranks) times the numbers: what `ranks_cost` counts, to 0.01 %. Two curves bound
what overlap does: all bytes behind backward(), and only those that leave at the end, as counted by ranks_cost, the others being
hidden as far as two thirds of the step, backward's share, are long enough. It knows nothing of switches, of neighbours, or of
ranks that wait for the slowest.
"""
import argparse
import math
import pathlib

# Numbers and the share of the bytes that leaves early, by ranks_cost; seconds of a step of one process (two cores of an EPYC,
# Zen 5), by PEERS.md.
NETWORKS = {"DnCNN-17×64, 16 patches of 40×40 a rank": (558031, 0.0807, 0.53), "DnCNN-17×64, 128 patches of 40×40 a rank": (558031, 0.6546, 0.53)}
# One direction of a full-duplex link, by its data sheet; the latency of a message through MPI, an order of magnitude.
NETS = {"1 Gb/s Ethernet": (125e6, 50e-6), "10 Gb/s Ethernet": (1.25e9, 20e-6), "100 Gb/s InfiniBand (EDR)": (12.5e9, 2e-6)}
RANKS = [2 ** k for k in range(1, 11)]


def exposed(numbers, step, early, ranks, bandwidth, latency, overlap):
    """Seconds that a step is longer than that of one process."""
    sent = 2 * (1 - 1 / ranks) * 4 * numbers
    transfer = sent / bandwidth
    hidden = min(early * transfer, 2 / 3 * step) if overlap else 0
    return 2 * math.log2(ranks) * latency + transfer - hidden


def efficiency(network, net, ranks, overlap):
    numbers, step, early = NETWORKS[network]
    bandwidth, latency = NETS[net]
    return step / (step + exposed(numbers, step, early, ranks, bandwidth, latency, overlap))


def plot(path):
    width, height, left, top, gap = 860, 330, 60, 50, 60
    inner = (width - left - 20 - gap) / 2
    colours = ["#b3442e", "#2f6f9f", "#3d8a4b"]
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           '<text x="10" y="18" font-size="14">A model, not measured: share of a step that computes (each rank has a batch of its own)</text>']
    for place, network in enumerate(NETWORKS):
        x0, bottom = left + place * (inner + gap), height - 60

        def at(ranks, value):
            return f"{x0 + (math.log2(ranks) - 1) / 9 * inner:.1f},{bottom - value * (bottom - top):.1f}"
        out.append(f'<text x="{x0}" y="{top - 10}">{network}</text>')
        for value in (0, 0.25, 0.5, 0.75, 1):
            y = bottom - value * (bottom - top)
            out.append(f'<path d="M{x0} {y:.1f}h{inner:.1f}" stroke="#ddd"/><text x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0%}</text>')
        for ranks in RANKS[::3]:
            out.append(f'<text x="{at(ranks, 0).split(",")[0]}" y="{bottom + 16}" text-anchor="middle">{ranks}</text>')
        out.append(f'<text x="{x0 + inner / 2:.0f}" y="{bottom + 32}" text-anchor="middle">ranks</text>')
        for colour, net in zip(colours, NETS):
            for overlap, dash in ((True, ""), (False, ' stroke-dasharray="4 3"')):
                points = " ".join(at(ranks, efficiency(network, net, ranks, overlap)) for ranks in RANKS)
                out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
    for place, (colour, net) in enumerate(zip(colours, NETS)):
        x = left + place * 190
        out.append(f'<path d="M{x} {height - 14}h24" stroke="{colour}" stroke-width="2"/><text x="{x + 30}" y="{height - 10}">{net}</text>')
    out.append(f'<text x="{left + 615}" y="{height - 10}">dashed: nothing overlaps</text></svg>')
    pathlib.Path(path).write_text("\n".join(out) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot")
    options = parser.parse_args()
    print("| a model: % of a step that computes, with and without overlap | 2 | 8 | 32 | 128 | 1,024 |\n|---|---|---|---|---|---|")
    for network in NETWORKS:
        for net in NETS:
            cells = (" / ".join(f"{100 * efficiency(network, net, ranks, overlap):.1f}" for overlap in (True, False)) for ranks in (2, 8, 32, 128, 1024))
            print(f"| {network}; {net} | {' | '.join(cells)} |")
    if options.plot:
        plot(options.plot)


if __name__ == "__main__":
    main()
