"""Makes tests/golden/convolutions.safetensors: what PyTorch's convolutions with groups, padding modes, kernels that are not
square and transposed ones give, forward and backward, in float64.

    python tests/golden/convolutions.py

Laid out as operators.py's file. Needs torch and safetensors.
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

out = {}


def record(name, module, *shape):
    name = "convolution_" + name
    torch.manual_seed(sum(ord(letter) * (i + 1) for i, letter in enumerate(name)))
    module = module.double()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            tensor.copy_((torch.randn(tensor.shape) * 0.5).double())
    x = torch.randn(*shape).double().requires_grad_()
    y = module(x)
    gy = torch.randn(*y.shape).double()
    (y * gy).sum().backward()
    out.update({f"{name}.state.{key}": tensor.clone() for key, tensor in module.state_dict().items()})
    out.update({f"{name}.x": x.detach(), f"{name}.y": y.detach(), f"{name}.infer": y.detach(), f"{name}.gy": gy, f"{name}.gx": x.grad})
    out.update({f"{name}.grad.{key}": p.grad for key, p in module.named_parameters()})


record("groups", nn.Conv2d(8, 8, 3, padding=1, groups=2), 2, 8, 5, 6)
record("groups_apart", nn.Conv2d(6, 9, 3, stride=2, padding=1, groups=3, bias=False), 1, 6, 7, 6)
record("multiplied", nn.Conv2d(3, 6, 3, padding=1, groups=3), 1, 3, 5, 6)
record("reflect", nn.Conv2d(3, 5, 5, padding=2, padding_mode="reflect"), 2, 3, 3, 6)
record("replicate", nn.Conv2d(2, 3, 3, stride=2, padding=3, padding_mode="replicate"), 1, 2, 2, 5)
record("circular", nn.Conv2d(4, 4, 3, padding=1, dilation=1, groups=4, padding_mode="circular"), 2, 4, 4, 5)
record("row", nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), 1, 3, 4, 9)
record("column", nn.Conv2d(3, 4, (5, 2), stride=2, padding=(1, 0), padding_mode="reflect"), 1, 3, 7, 6)
record("transpose_first", nn.ConvTranspose2d(7, 5, 4, stride=1, padding=0), 2, 7, 1, 1)
record("transpose_padded", nn.ConvTranspose2d(3, 4, 3, stride=2, padding=0, output_padding=1), 1, 3, 4, 3)
record("transpose_gaps", nn.ConvTranspose2d(3, 2, 2, stride=3, padding=0), 1, 3, 3, 4)
record("transpose_smaller", nn.ConvTranspose2d(18, 20, 3, stride=1, padding=2, bias=False), 1, 18, 5, 6)

path = pathlib.Path(__file__).with_suffix(".safetensors")
save_file({key: tensor.contiguous().clone() for key, tensor in out.items()}, path, metadata={"torch": torch.__version__})
print(path, path.stat().st_size, "bytes")
