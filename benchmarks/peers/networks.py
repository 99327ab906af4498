"""The networks that are timed, each once for all Python sides. benchmarks/networks.hpp has Strata's types for the same names.

A network is a list of layers: ("conv", in, out, kernel, bias), ("bn", channels), ("relu",); `residual` is "x - f(x)",
"x + f(x)" or "f(x)". For inference batch norm is folded into the convolution before it, which then has a bias.
"""
from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    channels: int
    layers: tuple
    residual: str = "f(x)"

    def folded(self):
        layers = [layer for layer in self.layers if layer[0] != "bn"]
        return Network(self.channels, tuple(("conv", *l[1:4], True) if l[0] == "conv" else l for l in layers), self.residual)

    def operations(self, n, h, w, training):
        """Floating-point operations of a direct convolution; training counts three times the forward pass."""
        macs = sum(l[1] * l[2] * l[3] ** 2 for l in self.layers if l[0] == "conv")
        return (6 if training else 2) * macs * n * h * w


def dncnn(channels, width, depth):
    middle = (("conv", width, width, 3, False), ("bn", width), ("relu",)) * (depth - 2)
    ends = ("conv", channels, width, 3, True), ("conv", width, channels, 3, True)
    return Network(channels, (ends[0], ("relu",), *middle, ends[1]), "x - f(x)")


NETWORKS = {
    "dncnn17": dncnn(1, 64, 17),
    "dncnn8x32": dncnn(1, 32, 8),
    "dncnn17x48": dncnn(1, 48, 17),
    "dncnn17x96": dncnn(1, 96, 17),
    "dncnn17rgb": dncnn(3, 64, 17),
    "vdsr": Network(1, (("conv", 1, 64, 3, True), ("relu",), *(("conv", 64, 64, 3, True), ("relu",)) * 18,
                        ("conv", 64, 1, 3, True)), "x + f(x)"),
    "srcnn": Network(1, (("conv", 1, 64, 9, True), ("relu",), ("conv", 64, 32, 1, True), ("relu",),
                         ("conv", 32, 1, 5, True))),
}


def random_weights(network, seed=0):
    """(weight, bias) of each convolution, with variance 2 / fan-in, as NumPy arrays in PyTorch's layout."""
    import numpy
    rng = numpy.random.default_rng(seed)
    for _, channels, out, kernel, bias in (l for l in network.layers if l[0] == "conv"):
        weight = rng.standard_normal((out, channels, kernel, kernel), dtype=numpy.float32)
        yield weight * (2 / (channels * kernel ** 2)) ** 0.5, numpy.zeros(out, numpy.float32) if bias else None


def torch_module(network):
    """The network as a torch.nn.Module, in the way a PyTorch user writes it."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            make = {"conv": lambda i, o, k, bias: torch.nn.Conv2d(i, o, k, padding=k // 2, bias=bias),
                    "bn": torch.nn.BatchNorm2d, "relu": lambda: torch.nn.ReLU(inplace=True)}
            self.body = torch.nn.Sequential(*(make[kind](*rest) for kind, *rest in network.layers))

        def forward(self, x):
            if network.residual == "x - f(x)":
                return x - self.body(x)
            return x + self.body(x) if network.residual == "x + f(x)" else self.body(x)

    return Module()
