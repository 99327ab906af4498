"""Makes tests/golden/layers.safetensors: what PyTorch's layers and losses give, forward and backward, in float64.

    python tests/golden/layers.py

Inputs and parameters are float32 numbers, so that the tests can run in float32 and float64. For a layer NAME there are
NAME.x, NAME.state.* (its parameters and buffers before), NAME.y and NAME.infer (the outputs in training and inference),
and, for the loss sum(y * NAME.gy), NAME.gx and NAME.grad.*. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

torch.manual_seed(1)
out = {}


def numbers(*shape, grid=None):
    """Random float32 numbers as float64; with a grid rounded to its multiples, so that there are ties and zeros."""
    x = torch.randn(*shape).double()
    return x if grid is None else (x / grid).round() * grid


def record(name, module, x):
    module = module.double()
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                values = torch.randn(tensor.shape) * 0.5
                tensor.copy_((values.abs() + 0.5 if "running_var" in key else values).double())
    out.update({f"{name}.state.{key}": tensor.clone() for key, tensor in module.state_dict().items()})
    module.eval()
    out[f"{name}.infer"] = module(x).detach()
    module.train()
    x = x.clone().requires_grad_()
    y = module(x)
    gy = numbers(*y.shape)
    (y * gy).sum().backward()
    out.update({f"{name}.x": x.detach(), f"{name}.y": y.detach(), f"{name}.gy": gy, f"{name}.gx": x.grad})
    out.update({f"{name}.grad.{key}": p.grad for key, p in module.named_parameters()})


class Residual(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return x - self.body(x)


def pixels(layer):
    """A layer of vectors as one of images of one pixel."""
    return nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, (-1, 1, 1)))


record("conv", nn.Conv2d(3, 5, 3, padding=1), numbers(2, 3, 7, 5))
record("conv_one_pixel", nn.Conv2d(3, 5, 3, padding=1), numbers(1, 3, 1, 1))
record("conv_valid", nn.Conv2d(2, 3, 3), numbers(2, 2, 6, 9))
record("conv_stride", nn.Conv2d(4, 6, 5, stride=2, padding=2), numbers(2, 4, 9, 8))
record("conv_dilated", nn.Conv2d(8, 8, 3, dilation=2, padding=2, bias=False), numbers(1, 8, 7, 6))
record("conv_even", nn.Conv2d(3, 4, 4, stride=2, padding=1), numbers(2, 3, 8, 7))
record("conv_1x1", nn.Conv2d(7, 9, 1), numbers(2, 7, 3, 4))
record("conv_wide", nn.Conv2d(16, 16, 3, padding=1), numbers(1, 16, 13, 11))
record("batch_norm", nn.BatchNorm2d(5), numbers(3, 5, 4, 3))
record("batch_norm_options", nn.BatchNorm2d(9, eps=1e-2, momentum=0.3), numbers(2, 9, 2, 3))
record("relu", nn.ReLU(), numbers(2, 3, 4, 5, grid=0.5))
record("leaky_relu", nn.LeakyReLU(), numbers(2, 3, 4, 5, grid=0.5))
record("leaky_relu_fifth", nn.LeakyReLU(0.2), numbers(2, 3, 4, 5, grid=0.5))
record("prelu", nn.PReLU(), numbers(2, 3, 4, 5, grid=0.5))
record("prelu_channels", nn.PReLU(5), numbers(2, 5, 4, 3, grid=0.5))
record("max_pool", nn.MaxPool2d(2), numbers(2, 3, 7, 6, grid=0.5))
record("max_pool_overlapping", nn.MaxPool2d(3, stride=2), numbers(1, 2, 8, 7, grid=0.5))
record("max_pool_dense", nn.MaxPool2d(3, stride=1), numbers(1, 2, 5, 6, grid=0.5))
record("avg_pool", nn.AvgPool2d(2), numbers(2, 3, 7, 6))
record("avg_pool_overlapping", nn.AvgPool2d(3, stride=2), numbers(1, 2, 8, 7))
record("global_avg_pool", nn.AdaptiveAvgPool2d(1), numbers(2, 5, 4, 3))
record("pixel_shuffle", nn.PixelShuffle(2), numbers(2, 12, 3, 4))
record("pixel_shuffle_3", nn.PixelShuffle(3), numbers(1, 18, 2, 3))
record("flatten", nn.Sequential(nn.Flatten(), nn.Unflatten(1, (60, 1, 1))), numbers(2, 3, 4, 5))
record("dncnn", Residual(nn.Sequential(
    nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(),
    nn.Sequential(*[nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
                    for _ in range(2)]),
    nn.Conv2d(6, 1, 3, padding=1))), numbers(2, 1, 9, 7))

linear = nn.Linear(7, 4)
record("linear", pixels(linear), numbers(3, 7, 1, 1))
linear = nn.Linear(5, 3, bias=False)
record("linear_no_bias", pixels(linear), numbers(2, 5, 1, 1))
for name in [key for key in out if ".1." in key and key.startswith("linear")]:  # the layer alone
    out[name.replace(".1.", ".")] = out.pop(name)

# Running statistics over three steps.
norm = nn.BatchNorm2d(3).double()
for step in range(3):
    x = numbers(2, 3, 3, 2) * (step + 1) + step
    norm(x)
    out.update({f"steps.{step}.x": x, f"steps.{step}.running_mean": norm.running_mean.clone(),
                f"steps.{step}.running_var": norm.running_var.clone()})

# Losses: value and gradient for the prediction.
prediction, target = numbers(2, 3, 4, 5, grid=0.5), numbers(2, 3, 4, 5, grid=0.5)
labels = torch.randint(0, 3, (2, 4, 5))
out.update({"loss.prediction": prediction, "loss.target": target, "loss.labels": labels})
losses = {
    "mse_mean": lambda p: F.mse_loss(p, target), "mse_sum": lambda p: F.mse_loss(p, target, reduction="sum"),
    "l1_mean": lambda p: F.l1_loss(p, target), "l1_sum": lambda p: F.l1_loss(p, target, reduction="sum"),
    "charbonnier": lambda p: ((p - target).square() + 0.1**2).sqrt().mean(),
    "cross_entropy_mean": lambda p: F.cross_entropy(p, labels),
    "cross_entropy_sum": lambda p: F.cross_entropy(p, labels, reduction="sum"),
}
for name, loss in losses.items():
    p = prediction.clone().requires_grad_()
    value = loss(p)
    value.backward()
    out.update({f"{name}.value": value.detach().reshape(1), f"{name}.gradient": p.grad})

record("sigmoid", nn.Sigmoid(), 4 * numbers(2, 3, 4, 5))
record("tanh", nn.Tanh(), 4 * numbers(2, 3, 4, 5))
record("silu", nn.SiLU(), 4 * numbers(2, 3, 4, 5))
record("conv_transpose", nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), numbers(2, 3, 4, 5))
record("conv_transpose_odd", nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1), numbers(1, 3, 1, 6))
record("conv_transpose_large", nn.ConvTranspose2d(8, 1, 9, stride=3, padding=3), numbers(1, 8, 5, 4))
record("conv_transpose_same", nn.ConvTranspose2d(9, 10, 3, padding=1, bias=False), numbers(2, 9, 9, 10))
for name, layer in {"gelu": nn.GELU(), "elu": nn.ELU(), "elu_half": nn.ELU(0.5), "softplus": nn.Softplus(), "mish": nn.Mish(),
                    "relu6": nn.ReLU6(), "hardsigmoid": nn.Hardsigmoid(), "hardswish": nn.Hardswish()}.items():
    record(name, layer, 4 * numbers(2, 3, 4, 5))
record("upsample", nn.Upsample(scale_factor=2), numbers(2, 3, 4, 5))
record("upsample_3", nn.Upsample(scale_factor=3), numbers(1, 2, 1, 3))
record("upsample_bilinear", nn.Upsample(scale_factor=2, mode="bilinear"), numbers(2, 3, 4, 5))
record("upsample_bilinear_3", nn.Upsample(scale_factor=3, mode="bilinear"), numbers(1, 5, 2, 1))
record("upsample_bilinear_4", nn.Upsample(scale_factor=4, mode="bilinear"), numbers(1, 2, 3, 4))


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


record("group_norm", nn.GroupNorm(2, 6), 2 * numbers(3, 6, 4, 5) + 1)
record("group_norm_all", nn.GroupNorm(1, 20, eps=1e-2), numbers(1, 20, 5, 7))
record("group_norm_each", nn.GroupNorm(9, 9), numbers(2, 9, 3, 2))
record("instance_norm", nn.InstanceNorm2d(5), numbers(2, 5, 6, 3) - 2)
record("layer_norm", LayerNorm2d(5, eps=1e-6), numbers(2, 5, 4, 3))
record("layer_norm_wide", LayerNorm2d(35, eps=1e-3), 3 * numbers(1, 35, 3, 2) + 2)
record("depthwise", nn.Conv2d(5, 5, 3, padding=1, groups=5), numbers(2, 5, 7, 6))
record("depthwise_stride", nn.Conv2d(19, 19, 3, stride=2, padding=1, groups=19, bias=False), numbers(1, 19, 9, 8))
record("depthwise_dilated", nn.Conv2d(8, 8, 5, padding=3, dilation=2, groups=8), numbers(2, 8, 11, 9))
record("depthwise_large", nn.Conv2d(17, 17, 7, padding=3, groups=17), numbers(1, 17, 10, 13))

path = pathlib.Path(__file__).with_suffix(".safetensors")
save_file({key: tensor.contiguous().clone() for key, tensor in out.items()}, path, metadata={"torch": torch.__version__})
print(path, path.stat().st_size, "bytes")
