#!/usr/bin/env python3
"""Makes tests/golden/networks_golden.hpp: what the PyTorch originals of the ready networks give, in float64.

    python tests/golden/networks.py

All numbers of a network and of its image come from number(), which the test computes too, so that the file holds only sums of
products with more such numbers: of the output in inference, of the output in training, and of all gradients of the loss
mean(output^2). Needs torch, torchvision, spandrel.
"""
import pathlib
import sys

import numpy
import torch

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "interchange"))
import ready  # noqa: E402


def number(name, shape):
    """Numbers from -0.5 to 0.5 for a tensor of this name: FNV-1a of the name, then a mixing function of the place."""
    seed = 2166136261
    for byte in name.encode():
        seed = (seed ^ byte) * 16777619 % 2**32
    x = (numpy.arange(numpy.prod(shape, dtype=int), dtype=numpy.uint64) * 2654435761 + seed).astype(numpy.uint32)
    for shift, factor in ((16, 0x7feb352d), (15, 0x846ca68b), (16, 1)):
        x = (x ^ (x >> numpy.uint32(shift))) * numpy.uint32(factor)
    return torch.from_numpy((x / 2.0**32 - 0.5).astype(numpy.float32)).double().reshape(tuple(shape))


def start(name, shape):
    x = number(name, shape)
    if len(shape) > 1:
        return x * (24 / (x.numel() / shape[0])) ** 0.5
    if name.endswith("running_var") or name.endswith("weight"):
        return 1 + 0.5 * x
    return 0.4 * x


def line(name, make):
    net, channels, size, ours = make()
    net.double()
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(start(ours(key), tensor.shape).float().double())
    x = number("image", (2, channels, *size)) + 0.5
    project = lambda key, tensor: float((tensor * number(key, tensor.shape)).sum())
    net.eval()
    with torch.no_grad():
        inferred = project("output", net(x))
    net.train()
    y = net(x)
    y.square().mean().backward()
    fixed = [key for key, module in net.named_modules() if type(module).__name__ == "MeanShift"]
    gradient = sum(project(ours(key), parameter.grad) for key, parameter in net.named_parameters() if key.rsplit(".", 1)[0] not in fixed)
    return f'    {{"{name}", {inferred!r}, {project("output", y.detach())!r}, {gradient!r}}},\n'


def main():
    _, small = ready.originals()
    text = "// Made by networks.py: sums of what PyTorch's networks give.\n#pragma once\n\nstruct NetworkGolden {\n  const char* name;\n" \
           "  double inferred, trained, gradient;\n};\ninline constexpr NetworkGolden network_goldens[] = {\n"
    text += "".join(line(name, make) for name, make in small.items())
    (HERE / "networks_golden.hpp").write_text(text + "};\n")


if __name__ == "__main__":
    main()
