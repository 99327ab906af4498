"""Prints the numbers in tests/core/numpy_random_test.cpp: numpy.random's legacy generator.

    python3 numpy_random.py
"""
import numpy as np

for seed in (0, 1, 12345, 2**32 - 1):
    np.random.seed(seed)
    uniform = [float(np.random.random_sample()).hex() for _ in range(3)]
    normal = [float(np.random.normal()).hex() for _ in range(5)]
    scaled = float(np.random.normal(0.25, 25 / 255)).hex()
    np.random.seed(seed)
    noise = np.random.normal(0, 25 / 255, (100, 1000))
    bits = np.bitwise_xor.reduce(noise.view(np.uint64).ravel())
    print(f"    {{{seed}u, {{{', '.join(uniform)}}},\n     {{{', '.join(normal)}}},\n     {scaled}, 0x{bits:016x}u}},")
