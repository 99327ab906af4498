"""Prints the numbers in tests/metrics/metrics_golden.hpp: PSNR and SSIM by scikit-image.

    python3 metrics.py > ../metrics/metrics_golden.hpp
"""
import numpy as np
import skimage
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity


def images(h, w, c):
    y, x, k = (g.astype(np.int64) for g in np.mgrid[0:h, 0:w, 0:c])
    clean = (3 * x + 2 * y + 40 * k + (x * y) // 16) % 256
    noisy = clean + (x * 7919 + y * 104729 + k * 1299709 + x * x * y * 31) % 41 - 20  # leaves [0, 255] here and there
    scale = np.float32(255)
    return [(v.astype(np.float32) / scale).astype(np.float64) for v in (clean, noisy)]


def measure(a, b):
    similarity = structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
                                       channel_axis=-1)
    return peak_signal_noise_ratio(a, b, data_range=1), similarity


def to_8bit(a):
    return np.round(np.clip(a, 0, 1) * 255) / 255


print("// Made by tests/golden/metrics.py with scikit-image " + skimage.__version__ + ".")
print("#pragma once\n")
print("struct MetricGolden {\n  int h, w, c;\n  bool rounded;\n  int border;\n  bool luma;\n  double psnr, ssim;\n};\n")
print("inline constexpr MetricGolden metric_golden[] = {")
for h, w, c in ((11, 11, 1), (37, 64, 1), (50, 41, 3)):
    for rounded in (False, True):
        for border in (0, 4):
            for luma in (False, True):
                if (luma and c != 3) or min(h, w) - 2 * border < 11:
                    continue
                pair = images(h, w, c)
                if rounded:
                    pair = [to_8bit(a) for a in pair]
                if luma:
                    pair = [rgb2ycbcr(a)[..., :1] / 255 for a in pair]
                if border:
                    pair = [a[border:-border, border:-border] for a in pair]
                p, s = measure(*pair)
                flags = f"{str(rounded).lower()}, {border}, {str(luma).lower()}"
                print(f"    {{{h}, {w}, {c}, {flags}, {p!r}, {s!r}}},".replace("np.float64(", "").replace(")", ""))
print("};")
