"""Prints the numbers in tests/interop/niqe_golden.hpp: NIQE by numpy alone, written from the paper and the authors' program.

    python3 niqe.py > ../interop/niqe_golden.hpp
"""
import math

import numpy as np

GAMMA = np.vectorize(math.gamma)
SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = GAMMA(2 / SHAPES) ** 2 / (GAMMA(1 / SHAPES) * GAMMA(3 / SHAPES))
ACROSS = np.arange(-3, 4)
WINDOW = np.exp(-(ACROSS[:, None] ** 2 + ACROSS[None, :] ** 2) / (2 * (7 / 6) ** 2))
WINDOW /= WINDOW.sum()


def hashed(x, y, seed):
    u = (x.astype(np.uint32) * np.uint32(73856093)) ^ (y.astype(np.uint32) * np.uint32(19349663)) ^ np.uint32(seed * 83492791 & 0xFFFFFFFF)
    u = (u ^ (u >> np.uint32(13))) * np.uint32(1274126177)
    return ((u ^ (u >> np.uint32(16))) & np.uint32(255)).astype(np.int64)


def picture(h, w, seed, blur=0, flat=False):
    y, x = (g.astype(np.int64) for g in np.mgrid[0:h, 0:w])
    contrast = (x // 96 + y // 96 + seed) % 3 + 2
    v = 4 * hashed(x // 8, y // 8, seed) + 3 * hashed(x // 3, y // 3, seed + 1) + 2 * hashed(x, y, seed + 2)
    v = 128 + (v - 9 * 128) * contrast // 36
    if blur:
        padded = np.pad(v, blur, mode="edge")
        size = 2 * blur + 1
        v = sum(padded[i:i + h, j:j + w] for i in range(size) for j in range(size)) // (size * size)
    if flat:
        v[:200, :200] = 77
    return np.clip(v, 0, 255).astype(np.float64)


def around(image):
    padded = np.pad(image, 3, mode="edge")
    h, w = image.shape
    return sum(WINDOW[i, j] * padded[i:i + h, j:j + w] for i in range(7) for j in range(7))


def half(image):
    def cubic(t):
        t = np.abs(t)
        return np.where(t <= 1, 1.5 * t**3 - 2.5 * t**2 + 1, np.where(t < 2, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2, 0))

    for axis in (0, 1):
        size = image.shape[axis]
        centres = (np.arange(size // 2) + 0.5) * 2 - 0.5
        places = np.floor(centres)[:, None].astype(int) + np.arange(-4, 6)[None, :]
        weights = cubic((centres[:, None] - places) / 2)
        weights /= weights.sum(1, keepdims=True)
        places = np.where(places < 0, -1 - places, np.where(places >= size, 2 * size - 1 - places, places))
        matrix = np.zeros((size // 2, size))
        for i in range(size // 2):
            np.add.at(matrix[i], places[i], weights[i])
        image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
    return image


def fit(values):
    values = values.ravel()
    with np.errstate(all="ignore"):
        left = np.sqrt(np.sum(values[values < 0] ** 2) / np.count_nonzero(values < 0))
        right = np.sqrt(np.sum(values[values > 0] ** 2) / np.count_nonzero(values > 0))
        g = left / right
        ratio = np.mean(np.abs(values)) ** 2 / np.mean(values**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - ratio) ** 2)]
    scale = math.sqrt(math.gamma(1 / shape) / math.gamma(3 / shape))
    return shape, left * scale, right * scale


def features(block):
    shape, left, right = fit(block)
    out = [shape, (left + right) / 2]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(block * np.roll(block, shift, (0, 1)))
        out += [shape, (right - left) * math.gamma(2 / shape) / math.gamma(1 / shape), left, right]
    return out


def blocks(image):
    """Features of each block, and how sharp each is."""
    h, w = (size // 96 for size in image.shape)
    image = image[:h * 96, :w * 96]
    columns, sharpness = [], None
    for size in (96, 48):
        mean = around(image)
        deviation = np.sqrt(np.abs(around(image**2) - mean**2))
        deviation[deviation < 1e-5] = 0  # rounding, where it is flat
        normalised = (image - mean) / (deviation + 1)
        normalised[np.abs(normalised) < 1e-9] = 0
        cut = [np.s_[i * size:(i + 1) * size, j * size:(j + 1) * size] for i in range(h) for j in range(w)]
        columns.append([features(normalised[c]) for c in cut])
        if size == 96:
            sharpness = np.array([deviation[c].mean() for c in cut])
        image = half(image)
    return np.concatenate(columns, 1), sharpness


def statistics(rows):
    whole = rows[~np.isnan(rows).any(1)]
    return np.nanmean(rows, 0), np.cov(whole, rowvar=False)


def model(images):
    rows = []
    for image in images:
        values, sharpness = blocks(image)
        rows.append(values[sharpness > 0.75 * sharpness.max()])
    return statistics(np.concatenate(rows))


def niqe(image, mean, covariance):
    own_mean, own_covariance = statistics(blocks(image)[0])
    return math.sqrt((mean - own_mean) @ np.linalg.pinv((covariance + own_covariance) / 2) @ (mean - own_mean))


PRISTINE = [(500, 480, seed) for seed in (1, 5, 9, 13, 17)]
MEASURED = [(210, 400, 21, 0, False), (288, 290, 22, 1, False), (300, 200, 23, 3, False), (400, 390, 24, 0, True)]


def main():
    mean, covariance = model([picture(*p) for p in PRISTINE])
    print("// Made by tests/golden/niqe.py with numpy.\n#pragma once\n")
    print("struct NiqePicture {\n  int h, w, seed, blur;\n  bool flat;\n  double niqe;\n};\n")
    print("inline constexpr int niqe_pristine[][3] = {" + ", ".join("{%d, %d, %d}" % p for p in PRISTINE) + "};")
    print("inline constexpr double niqe_mean[36] = {\n    " + ",\n    ".join(repr(float(v)) for v in mean) + "};")
    print("inline constexpr double niqe_variances[36] = {\n    " + ",\n    ".join(repr(float(v)) for v in np.diag(covariance)) + "};")
    print("inline constexpr NiqePicture niqe_measured[] = {")
    for h, w, seed, blur, flat in MEASURED:
        value = niqe(picture(h, w, seed, blur, flat), mean, covariance)
        print(f"    {{{h}, {w}, {seed}, {blur}, {str(flat).lower()}, {value!r}}},")
    print("};")


if __name__ == "__main__":
    main()
