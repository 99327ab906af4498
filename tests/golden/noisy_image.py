"""Prints the numbers in tests/data/noisy_patches_test.cpp: noise as the denoising literature's scripts add it.

    python3 noisy_image.py
"""
import numpy as np

for h, w, c in ((5, 7, 1), (5, 7, 3)):
    y, x, k = np.mgrid[0:h, 0:w, 0:c]
    image = np.float32((x * 37 + y * 91 + k * 11) % 256) / np.float32(255)
    np.random.seed(0)
    image += np.random.normal(0, 25 / 255.0, image.shape)
    print(", ".join(float(image[at]).hex() + "f" for at in ((0, 0, 0), (2, 3, c - 1), (4, 6, 0))))
