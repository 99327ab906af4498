"""Makes tests/golden/operators.safetensors: what PyTorch's operators give, forward and backward, in float64.

    python tests/golden/operators.py

Laid out as layers.py's file: for NAME there are NAME.x, NAME.state.*, NAME.y and NAME.infer, and, for the loss
sum(y * NAME.gy), NAME.gx and NAME.grad.*; a second image is NAME.x2, with NAME.gx2. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

out = {}


def numbers(*shape, grid=None):
    """Random float32 numbers as float64; with a grid rounded to its multiples, so that there are ties and zeros."""
    x = torch.randn(*shape).double()
    return x if grid is None else (x / grid).round() * grid


def record(name, function, *shapes, grid=None, inputs=None):
    """A module, or a function of images. Each entry has random numbers of its own, so that adding one changes no other."""
    torch.manual_seed(sum(ord(letter) * (i + 1) for i, letter in enumerate(name)))
    xs = inputs if inputs is not None else [numbers(*shape, grid=grid) for shape in shapes]
    if isinstance(function, nn.Module):
        function = function.double()
        with torch.no_grad():
            for tensor in function.state_dict().values():
                tensor.copy_((torch.randn(tensor.shape) * 0.5).double())
        out.update({f"{name}.state.{key}": tensor.clone() for key, tensor in function.state_dict().items()})
        function.eval()
    out[f"{name}.infer"] = function(*xs).detach()
    if isinstance(function, nn.Module):
        function.train()
    xs = [x.clone().requires_grad_() for x in xs]
    y = function(*xs)
    gy = numbers(*y.shape)
    (y * gy).sum().backward()
    out.update({f"{name}.y": y.detach(), f"{name}.gy": gy})
    for i, x in enumerate(xs):
        suffix = "" if i == 0 else str(i + 1)
        out.update({f"{name}.x{suffix}": x.detach(),
                    f"{name}.gx{suffix}": x.grad if x.grad is not None else torch.zeros_like(x)})
    if isinstance(function, nn.Module):
        out.update({f"{name}.grad.{key}": p.grad for key, p in function.named_parameters()})


# Pooling: windows that reach into the padding, ties, a last window that is cut off, parts of an image.
record("max_pool_resnet", nn.MaxPool2d(3, 2, 1), (2, 3, 7, 6), grid=0.5)
record("max_pool_padded", nn.MaxPool2d(2, 1, 1), (1, 2, 1, 4), grid=0.5)
record("max_pool_ceil", nn.MaxPool2d(3, 2, 0, ceil_mode=True), (1, 5, 6, 8), grid=0.5)
record("max_pool_all", nn.MaxPool2d(4, 3, 2, ceil_mode=True), (2, 2, 5, 9), grid=0.5)
record("avg_pool_padded", nn.AvgPool2d(3, 2, 1), (2, 3, 7, 6))
record("avg_pool_without_padding", nn.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 3, 6, 7))
record("avg_pool_ceil", nn.AvgPool2d(3, 2, 1, ceil_mode=True), (1, 2, 6, 8))
record("avg_pool_all", nn.AvgPool2d(4, 3, 2, ceil_mode=True, count_include_pad=False), (1, 5, 5, 9))
record("avg_pool_one_pixel", nn.AvgPool2d(3, 1, 1), (1, 3, 1, 1))
record("adaptive_pool", nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 7, 6))
record("adaptive_pool_larger", nn.AdaptiveAvgPool2d((7, 7)), (1, 2, 4, 3))
record("adaptive_pool_even", nn.AdaptiveAvgPool2d(2), (1, 5, 6, 4))
record("adaptive_pool_one", nn.AdaptiveAvgPool2d(1), (1, 3, 5, 4))
record("adaptive_max_pool", nn.AdaptiveMaxPool2d((3, 2)), (2, 3, 7, 6), grid=0.5)
record("adaptive_max_pool_larger", nn.AdaptiveMaxPool2d((7, 7)), (1, 2, 4, 3), grid=0.5)
record("adaptive_max_pool_even", nn.AdaptiveMaxPool2d(2), (1, 5, 6, 4), grid=0.5)
record("adaptive_max_pool_one", nn.AdaptiveMaxPool2d(1), (1, 19, 5, 4), grid=0.5)

# Learned numbers, as NAFNet has them.
class Scaled(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.beta, self.gain = nn.Parameter(torch.zeros(1, channels, 1, 1)), nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x * self.gain + self.beta / (x * x + 1) - self.gain + x * x * self.beta


record("scaled", Scaled(5), (2, 5, 4, 3))
record("relu_function", F.relu, (2, 3, 4, 5), grid=0.5)
record("leaky_relu_function", lambda x: F.leaky_relu(x, 0.2), (2, 3, 4, 5), grid=0.5)
record("silu_function", F.silu, (2, 3, 4, 5))
record("gelu_function", F.gelu, (2, 3, 4, 5))
record("gelu_tanh", nn.GELU(approximate="tanh"), (2, 3, 4, 5))
record("one_channel", lambda x, m: (x * m + torch.maximum(m, x)) / (m * m + 1) - m, (2, 5, 4, 3), (2, 1, 4, 3))
record("pow_function", lambda x: x.pow(3), (2, 3, 4, 5))

# Margins and parts.
record("pad_zeros", lambda x: F.pad(x, (1, 2, 3, 0)), (2, 3, 4, 5))
record("pad_negative", lambda x: F.pad(x, (-1, 2, 1, -2)), (2, 3, 4, 5))
record("pad_reflect", lambda x: F.pad(x, (3, 2, 1, 3), mode="reflect"), (2, 3, 4, 5))
record("pad_replicate", lambda x: F.pad(x, (3, 6, 1, 5), mode="replicate"), (1, 2, 1, 3))
record("pad_circular", lambda x: F.pad(x, (5, 2, 1, 4), mode="circular"), (2, 3, 4, 5))
record("crop", lambda x: x[:, :, 1:4, 2:4], (2, 5, 6, 5))
record("crop_like", lambda x, y: x[:, :, :y.shape[2], :y.shape[3]], (2, 3, 6, 5), (2, 2, 4, 5))

# One number of many.
record("mean_over_pixels", lambda x: x.mean((2, 3), keepdim=True), (2, 5, 6, 5))
record("sum_over_pixels", lambda x: x.sum((2, 3), keepdim=True), (2, 5, 6, 5))
record("max_over_pixels", lambda x: F.max_pool2d(x, x.shape[2:]), (2, 5, 6, 5), grid=0.5)
record("mean_over_channels", lambda x: x.mean(1, keepdim=True), (2, 5, 6, 5))
record("sum_over_channels", lambda x: x.sum(1, keepdim=True), (2, 5, 6, 5))
record("max_over_channels", lambda x: x.max(1, keepdim=True)[0], (2, 5, 6, 5))

# Other sizes.
for mode in ("nearest", "bilinear", "bicubic"):
    for name, factor in {"": 1.5, "_down": 0.5, "_thirds": 2 / 3, "_twice": 2.0, "_less": 0.4}.items():
        record(f"resize_{mode}{name}", nn.Upsample(scale_factor=factor, mode=mode), (1, 3, 6, 9))
    record(f"resize_{mode}_like", lambda x, y: F.interpolate(x, size=y.shape[2:], mode=mode), (2, 3, 5, 4), (2, 2, 7, 3))
    record(f"resize_{mode}_one", lambda x: F.interpolate(x, size=(3, 1), mode=mode), (1, 5, 1, 4))
    if mode != "nearest":
        record(f"resize_{mode}_corners", nn.Upsample(scale_factor=2, mode=mode, align_corners=True), (2, 3, 4, 5))
        record(f"resize_{mode}_corners_like", lambda x, y: F.interpolate(x, size=y.shape[2:], mode=mode, align_corners=True),
               (2, 3, 7, 4), (2, 2, 3, 1))

# Over channels; vectors as images.
record("softmax", nn.Softmax2d(), (2, 5, 3, 4))
record("softmax_wide", lambda x: F.softmax(4 * x, dim=1), (1, 35, 2, 3))
record("log_softmax", nn.LogSoftmax(dim=1), (2, 5, 3, 4))
record("log_softmax_wide", lambda x: F.log_softmax(40 * x, dim=1), (1, 35, 2, 3))
record("l2_normalize", F.normalize, (2, 5, 3, 4))
record("l2_normalize_eps", lambda x: F.normalize(x, dim=1, eps=2.0), (2, 3, 3, 4))
record("unflatten", nn.Sequential(nn.Flatten(), nn.Unflatten(1, (5, 2, 3))), (2, 30, 1, 1))

path = pathlib.Path(__file__).with_suffix(".safetensors")
save_file({key: tensor.contiguous().clone() for key, tensor in out.items()}, path, metadata={"torch": torch.__version__})
print(path, path.stat().st_size, "bytes")
