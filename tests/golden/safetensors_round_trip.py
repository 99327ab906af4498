"""Checks files of strata with Python's safetensors and PyTorch, and makes one for strata to read back.

    python tests/golden/safetensors_round_trip.py strata_weights.safetensors from_python.safetensors [checkpoint]

strata_weights holds the network of tests/io/io_test_net.hpp (head, norm, tail) with its numbers counted 1, 2, 3, ... in
strata's memory order; a checkpoint holds the same under "net.". Ends with an error when anything differs.
"""
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(2, 3, 3)
        self.norm = torch.nn.BatchNorm2d(3)
        self.tail = torch.nn.Conv2d(2, 3, 3)
        del self.norm.bias, self.norm.running_var  # the test's norm has neither
        self.norm.bias = self.norm.running_var = None


def expected():
    """The numbers 1, 2, 3, ... in strata's memory order (O, KH, KW, I), as PyTorch's O, I, KH, KW."""
    net, first = Net(), 1
    state = {}
    for name in ("head.weight", "head.bias", "norm.weight", "norm.running_mean", "norm.num_batches_tracked",
                 "tail.weight", "tail.bias"):
        like = net.state_dict()[name]
        count = like.numel()
        numbers = torch.arange(first, first + count, dtype=torch.float64)
        first += count
        if like.dim() == 4:
            o, i, kh, kw = like.shape
            numbers = numbers.reshape(o, kh, kw, i).permute(0, 3, 1, 2)
        state[name] = numbers.reshape(like.shape).to(like.dtype).contiguous()
    return state


def check(state):
    net = Net()
    net.load_state_dict(state, strict=True)
    for name, tensor in expected().items():
        assert torch.equal(net.state_dict()[name], tensor), name
        assert state[name].dtype == tensor.dtype, name


weights, out = sys.argv[1], sys.argv[2]
check(load_file(weights))
with safe_open(weights, "pt") as file:
    print("metadata:", file.metadata())
if len(sys.argv) > 3:
    tensors = load_file(sys.argv[3])
    check({name[4:]: tensor for name, tensor in tensors.items() if name.startswith("net.")})
    print("checkpoint:", len(tensors), "tensors")
save_file({name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in expected().items()}, out,
          metadata={"made": "by Python"})
print("ok")
