"""Makes optimizer_*.safetensors and .pth: the state of torch's optimisers after three steps, by name, and the weights of the
optimiser tests (tests/optim/optim_test_net.hpp) before and after a fourth.

    python tests/golden/optimizer_files.py
"""
import math
import pathlib

import safetensors.torch
import torch

HERE = pathlib.Path(__file__).parent
MAKE = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.05),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
}
for kind, make in MAKE.items():
    numbers = iter(math.sin(i + 1) for i in range(17))
    named = {"weight": torch.tensor([next(numbers) for _ in range(12)]).reshape(4, 3),
             "bias": torch.tensor([next(numbers) for _ in range(5)])}
    optimizer = make([p.requires_grad_() for p in named.values()])
    tensors = {}
    for step in range(4):
        if step == 3:
            tensors = {f"{name}.{key}": value.clone() for name, p in named.items() for key, value in optimizer.state[p].items()
                       if torch.is_tensor(value)}
            tensors |= {f"before.{name}": p.detach().clone() for name, p in named.items()}
        i = 0
        for p in named.values():
            p.grad = torch.tensor([math.cos(0.7 * (step + 1) * (i + k + 1)) for k in range(p.numel())]).reshape(p.shape)
            i += p.numel()
        optimizer.step()
    tensors |= {f"after.{name}": p.detach().clone() for name, p in named.items()}
    state = {key: value for key, value in tensors.items() if not key.startswith(("before", "after"))}
    safetensors.torch.save_file({k: v for k, v in tensors.items() if k not in state}, HERE / f"optimizer_{kind}_weights.safetensors")
    safetensors.torch.save_file(state, HERE / f"optimizer_{kind}.safetensors")
    if kind == "adamw":
        torch.save(state, HERE / f"optimizer_{kind}.pth")
