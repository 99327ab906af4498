#!/usr/bin/env python3
"""PSNR of BM3D on each channel and of CBM3D on colour images, under the noise that ffdnet_test adds.

    pip install bm3d==4.0.3 scikit-image==0.26.0
    python benchmarks/peers/bm3d_baseline.py --sigma 25              # the three photographs of scikit-image
    python benchmarks/peers/bm3d_baseline.py --sigma 25 FILE...

NumPy's noise with seed 0 for each image, not clipped; PSNR over all channels, not rounded. A minute for three images.
"""
import argparse
import pathlib

import bm3d
import numpy as np
import skimage
from skimage import io


def psnr(a, b):
    return 10 * np.log10(1 / np.mean((a - b) ** 2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sigma", type=float, default=25, help="on the scale of 0 to 255")
    photographs = [pathlib.Path(skimage.__file__).parent / "data" / f"{name}.png" for name in ("astronaut", "chelsea", "coffee")]
    parser.add_argument("files", nargs="*", type=pathlib.Path, default=photographs)
    options = parser.parse_args()
    sigma = options.sigma / 255
    rows = []
    for file in options.files:
        clean = io.imread(file)[..., :3] / 255
        noisy = clean + np.random.RandomState(0).normal(0, sigma, clean.shape)
        alone = np.stack([bm3d.bm3d(noisy[..., c], sigma) for c in range(3)], axis=-1)
        rows.append([psnr(image, clean) for image in (noisy, alone, bm3d.bm3d_rgb(noisy, sigma))])
        print(f"{file.name:16}", "noisy {:.2f}  BM3D on each channel {:.2f}  CBM3D {:.2f} dB".format(*rows[-1]), flush=True)
    print(f"{'mean':16}", "noisy {:.2f}  BM3D on each channel {:.2f}  CBM3D {:.2f} dB".format(*np.mean(rows, axis=0)))


if __name__ == "__main__":
    main()
