"""PyTorch's side. The variant is "contiguous", "channels_last" or "compile" (channels_last under torch.compile; its
inductor freezes the weights for inference). Sets the threads from OMP_NUM_THREADS."""
import os
import pathlib
import sys

import torch

from networks import NETWORKS, torch_module
from server import serve

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tests" / "interchange"))

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def ready(name):
    """A ready network's original and its channels; ready_*.cpp has Strata's of the same name."""
    from ready import originals
    full, _ = originals()
    if name == "resnet18_cifar":
        from torchvision.models import resnet18
        net = resnet18(num_classes=10)
        net.conv1, net.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
        return net, 3
    if name == "drunet":
        from spandrel.architectures.DRUNet import DRUNet
        return DRUNet(in_nc=2, out_nc=1), 2
    net, channels, *_ = full["nafnet" if name == "nafnet32" else name]()
    return net, channels


def fused(net):
    """Batch norms folded into the convolutions before them, as deployment does."""
    net = net.eval()
    for module in net.modules():
        before = None
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d) and type(before) in (torch.nn.Conv2d, torch.nn.ConvTranspose2d):
                transposed = isinstance(before, torch.nn.ConvTranspose2d)
                joined = torch.nn.utils.fuse_conv_bn_eval(before, child, transpose=transposed)
                setattr(module, before_name, joined)
                setattr(module, name, torch.nn.Identity())
            before, before_name = child, name
    return net


def make(work, name, n, h, w, variant):
    memory_format = torch.contiguous_format if variant == "contiguous" else torch.channels_last
    if name in NETWORKS:
        network = NETWORKS[name]
        channels = network.channels
        model = torch_module(network.folded()).eval() if work == "infer" else torch_module(network).train()
    else:
        model, channels = ready(name)
        model = fused(model) if work == "infer" else model.train()
    model = model.to(memory_format=memory_format)
    x = torch.rand(n, channels, h, w).to(memory_format=memory_format)
    if work == "infer":
        if variant == "compile":
            torch._inductor.config.freezing = True
            model = torch.compile(model)

        def infer():
            with torch.inference_mode():
                model(x)
        return infer

    with torch.no_grad():
        target = torch.rand_like(model(x))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model) if variant == "compile" else model

    def train():
        loss = torch.nn.functional.mse_loss(forward(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return train


serve(make)
