"""Makes tests/golden/training.safetensors: twenty steps of a small DnCNN in PyTorch, with SGD across a milestone of
MultiStepLR, and with Adam. Needs torch and safetensors.

    python tests/golden/training.py
"""
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn

STEPS, BATCH, SIZE, WIDTH, BLOCKS = 20, 4, 16, 8, 3


class DnCNN(nn.Module):
    def __init__(self):
        super().__init__()
        block = lambda: nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU(), nn.Sequential(*[block() for _ in range(BLOCKS)]),
                                  nn.Conv2d(WIDTH, 1, 3, padding=1))

    def forward(self, x):
        return x - self.body(x)


torch.manual_seed(0)
torch.set_num_threads(1)
clean = torch.rand(STEPS, BATCH, SIZE, SIZE)
noisy = clean + 0.1 * torch.randn_like(clean)
start = DnCNN().state_dict()
start = {name: tensor.clone() for name, tensor in start.items()}
out = {"clean": clean, "noisy": noisy, **{f"start.{name}": tensor for name, tensor in start.items()}}

for kind in ("sgd", "adam"):
    for dtype in (torch.float32, torch.float64):
        net = DnCNN()
        net.load_state_dict(start)
        net.to(dtype)
        if kind == "sgd":
            optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-4)
        else:
            optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[8, 15], gamma=0.3)
        losses = []
        for step in range(STEPS):
            x, y = noisy[step].unsqueeze(1).to(dtype), clean[step].unsqueeze(1).to(dtype)
            loss = nn.functional.mse_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        precision = "" if dtype == torch.float32 else "64"
        out[f"losses.{kind}{precision}"] = torch.tensor(losses, dtype=torch.float64)
        if not precision:
            out.update({f"{kind}.{name}": tensor.clone() for name, tensor in net.state_dict().items()})

save_file(out, pathlib.Path(__file__).with_suffix(".safetensors"))
for kind in ("sgd", "adam"):
    distance = (out[f"losses.{kind}"] / out[f"losses.{kind}64"] - 1).abs().max()
    print(f"{kind}: float32 and float64 losses differ by at most {distance:.1e}, relative")
