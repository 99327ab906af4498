#!/usr/bin/env python3
"""Rounding errors of Winograd convolutions F(m x m, 3 x 3) in float32, for several sets of points, simulated in NumPy:
the largest error over the sum of magnitudes, 64 channels, normal random numbers. Needs numpy.

    python benchmarks/winograd_error.py
"""
import numpy

CHANNELS, TILES, TAPS = 64, 200, 3


def matrices(m, points):
    """A^T, G and B^T for the given points and infinity (Toom-Cook); rows of B^T scaled to about 1 by powers of two."""
    n, finite = m + TAPS - 1, [float(p) for p in points]
    g, a_t, b_t = numpy.zeros((n, TAPS)), numpy.zeros((m, n)), numpy.zeros((n, n))
    for i, x in enumerate(finite):
        others = finite[:i] + finite[i + 1:]
        g[i] = [x**k / numpy.prod([x - y for y in others]) for k in range(TAPS)]
        a_t[:, i] = [x**k for k in range(m)]
        b_t[i, :n - 1] = numpy.poly(others)[::-1]
    g[-1, -1] = a_t[-1, -1] = 1
    b_t[-1] = numpy.poly(finite)[::-1]
    for i in range(n):
        scale = 2.0 ** numpy.round(numpy.log2(abs(b_t[i]).max()))
        b_t[i] /= scale
        g[i] *= scale
    return [matrix.astype(numpy.float32) for matrix in (a_t, g, b_t)]


def both_ways(matrix, x):
    half = numpy.einsum("ij,...jk->...ik", matrix, x).astype(numpy.float32)
    return numpy.einsum("...ij,kj->...ik", half, matrix).astype(numpy.float32)


def largest_error(m, points):
    random = numpy.random.default_rng(0)
    a_t, g, b_t = matrices(m, points)
    x = random.standard_normal((TILES, CHANNELS, m + 2, m + 2)).astype(numpy.float32)
    weight = random.standard_normal((CHANNELS, TAPS, TAPS)).astype(numpy.float32)
    u, v = both_ways(g, weight), both_ways(b_t, x)
    products = numpy.zeros((TILES, m + 2, m + 2), numpy.float32)
    for c in range(CHANNELS):
        products += v[:, c] * u[c]
    y = both_ways(a_t, products)
    exact, magnitude = numpy.zeros_like(y, dtype=float), numpy.zeros_like(y, dtype=float)
    for i in range(TAPS):
        for j in range(TAPS):
            terms = x[:, :, i:i + m, j:j + m].astype(float) * weight[:, i, j].astype(float)[:, None, None]
            exact += terms.sum(1)
            magnitude += abs(terms).sum(1)
    return (abs(y - exact) / magnitude).max()


half = 2**-0.5
for m, points in ((4, [0, half, -half, 2 * half, -2 * half]), (4, [0, 1, -1, 2, -2]),
                  (6, [0, 1, -1, 2, -2, 0.5, -0.5]), (6, [0, 1, -1, 1.5, -1.5, 2 / 3, -2 / 3]),
                  (6, [0, 1, -1, 0.6, -0.6, 1 / 0.6, -1 / 0.6])):
    print(f"F({m}x{m}, 3x3), points {', '.join(f'{p:.3g}' for p in points)}, infinity: {largest_error(m, points):.2g}")
