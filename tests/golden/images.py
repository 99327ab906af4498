"""Makes tests/golden/images/: small image files written by another program (Pillow) for the tests of image_file.hpp.

    python3 images.py

Pixel (x, y) of the 17x13 images, 8 bits: grey is (11 x + 7 y) mod 256; red 15 x, green 19 y, blue (x y) mod 256; alpha is
the grey value. The 16-bit file holds 4000 x + y.
"""
import os

import numpy as np
from PIL import Image

folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")
os.makedirs(folder, exist_ok=True)
y, x = np.mgrid[0:13, 0:17]
grey = ((11 * x + 7 * y) % 256).astype(np.uint8)
rgb = np.stack([15 * x, 19 * y, (x * y) % 256], -1).astype(np.uint8)


def save(name, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(os.path.join(folder, name), **options)


save("grey.png", grey)
save("rgb.png", rgb)
save("grey_alpha.png", np.dstack([grey, grey]))
save("rgb_alpha.png", np.dstack([rgb, grey]))
save("grey_16.png", (4000 * x + y).astype(np.uint16))
save("grey_palette.png", grey, "P")
save("black_white.png", grey > 100)
save("grey.bmp", grey)
save("rgb.bmp", rgb)
save("rgb_32.bmp", np.dstack([rgb, grey]))
save("black_white.bmp", grey > 100)
save("grey.jpg", grey, quality=100)
save("rgb.jpg", rgb, quality=100, subsampling=0)
save("progressive.jpg", rgb, quality=100, subsampling=0, progressive=True)


def photo(h, w, channels):
    """Like a photograph to a compressor: smooth surfaces, edges and noise, so that every filter of PNG has its rows."""
    random = np.random.RandomState(1)
    y, x = np.mgrid[0:h, 0:w]
    surface = 90 * np.sin(x / 9) * np.cos(y / 7) + 60 * (x > y) + 2 * (y % 16) * (x % 5)
    planes = [surface * (1 - 0.2 * c) + 128 + random.normal(0, 1 + y // 8, (h, w)) for c in range(channels)]
    pixels = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    pixels[h // 2:h // 2 + 4] = pixels[h // 2]  # equal rows: filter "up"
    return pixels[..., 0] if channels == 1 else pixels


save("photo_grey.png", photo(46, 70, 1))
save("photo_rgb.png", photo(37, 50, 3))
