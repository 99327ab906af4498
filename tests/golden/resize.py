"""Bicubic resizing by Pillow, in floats: writes resize_golden.hpp.

    python3 tests/golden/resize.py > tests/golden/resize_golden.hpp        # Pillow 10 or newer, NumPy

Pillow's weights are MATLAB's (Keys's cubic with a = -0.5, widened when shrinking). Beyond the edges Pillow leaves pixels
out and MATLAB mirrors them, so only the inside can be compared.
"""
import numpy
from PIL import Image

HEIGHT, WIDTH = 20, 24
SIZES = [(40, 48), (10, 12), (30, 18), (7, 50)]


def numbers(values):
    return ", ".join(f"{value:.9g}f" for value in values)


image = numpy.random.default_rng(7).random((HEIGHT, WIDTH)).astype(numpy.float32)
print("// Made by resize.py.\n#pragma once\n\n#include <vector>\n\nnamespace golden {\n")
print("struct Resized {\n  int h, w;\n  std::vector<float> values;\n};\n")
print(f"inline constexpr int resize_h = {HEIGHT}, resize_w = {WIDTH};")
print(f"inline const std::vector<float> resize_input{{{numbers(image.flat)}}};")
print("inline const std::vector<Resized> resized{")
for h, w in SIZES:
    out = numpy.asarray(Image.fromarray(image, "F").resize((w, h), Image.BICUBIC))
    print(f"    {{{h}, {w}, {{{numbers(out.flat)}}}}},")
print("};\n\n}  // namespace golden")
