"""PyTorch's side. The variant is "contiguous", "channels_last" or "compile" (channels_last under torch.compile; its
inductor freezes the weights for inference). Sets the threads from OMP_NUM_THREADS."""
import os

import torch

from networks import NETWORKS, torch_module
from server import serve

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))


def make(work, name, n, h, w, variant):
    memory_format = torch.contiguous_format if variant == "contiguous" else torch.channels_last
    network = NETWORKS[name]
    x = torch.rand(n, network.channels, h, w).to(memory_format=memory_format)
    if work == "infer":
        model = torch_module(network.folded()).eval().to(memory_format=memory_format)
        if variant == "compile":
            torch._inductor.config.freezing = True
            model = torch.compile(model)

        def infer():
            with torch.inference_mode():
                model(x)
        return infer

    target = torch.rand(n, network.channels, h, w).to(memory_format=memory_format)
    model = torch_module(network).train().to(memory_format=memory_format)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    forward = torch.compile(model) if variant == "compile" else model

    def train():
        loss = torch.nn.functional.mse_loss(forward(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return train


serve(make)
