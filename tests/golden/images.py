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
