#!/usr/bin/env python3
"""What torchvision makes of a small picture: writes tests/data/augment_golden.hpp.

    python tests/golden/augment.py
"""
import pathlib

import torch
import torchvision
import torchvision.transforms.functional as F
from torchvision.transforms import InterpolationMode

H, W = 6, 7
values = [((37 * i * i + 11 * i + 5) % 256) for i in range(H * W * 3)]
image = torch.tensor(values, dtype=torch.float64).reshape(H, W, 3).permute(2, 0, 1).float() / 255

CASES = {
    "resized_down": F.resize(image, [4, 3], InterpolationMode.BILINEAR, antialias=True),
    "resized_up": F.resize(image, [9, 8], InterpolationMode.BILINEAR, antialias=True),
    "brightness": F.adjust_brightness(image, 1.3),
    "contrast": F.adjust_contrast(image, 0.6),
    "saturation": F.adjust_saturation(image, 1.7),
    "hue": F.adjust_hue(image, -0.3),
    "rotated_nearest": F.rotate(image, 25.0, InterpolationMode.NEAREST, fill=[0.5, 0.5, 0.5]),
    "rotated_bilinear": F.rotate(image, -40.0, InterpolationMode.BILINEAR),
}


def main():
    out = [f"// Made by tests/golden/augment.py with torchvision {torchvision.__version__.split('+')[0]}. Pixels are in the order of memory.",
           "#pragma once", "", "#include <vector>", "", "namespace augment_golden {", ""]
    for name, result in CASES.items():
        numbers = ", ".join(f"{v:.8g}f" if "." in f"{v:.8g}" or "e" in f"{v:.8g}" else f"{v:.8g}.0f" for v in result.permute(1, 2, 0).reshape(-1).tolist())
        lines, line = [], "   "
        for number in numbers.split(", "):
            if len(line) + len(number) > 115:
                lines.append(line)
                line = "   "
            line += f" {number},"
        lines.append(line)
        out += [f"inline const std::vector<float> {name}{{  // {result.shape[1]} x {result.shape[2]}", *lines, "};"]
    out += ["", "}  // namespace augment_golden", ""]
    path = pathlib.Path(__file__).resolve().parent.parent / "data" / "augment_golden.hpp"
    path.write_text("\n".join(out))


main()
