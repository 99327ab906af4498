#!/usr/bin/env python3
"""Trains DnCNN in PyTorch by the recipe of examples/dncnn/train.cpp, as fast as PyTorch does on a few cores: channels_last,
a tuned allocator, patches made by a worker. Same options, same network and start, validation on the same noise; the
curve goes to DIR/log.csv as epoch,lr,loss,psnr,seconds.

    python benchmarks/peers/train_dncnn.py --train-dir Train400 --valid-dir Set12 --depth 8 --width 32 --minutes 15 \\
        --epochs 30 --steps-per-epoch 800 --batch-size 16 --init-lr 4e-3 --milestones 15,20,24,26,28,29 --gamma 0.4 \\
        --checkpoint-dir out

--minutes ends the run; to compare, give an epoch as many steps as this machine makes in a thirtieth of the time, so that
the learning rate has fallen by then.
"""
import argparse
import os
import pathlib
import sys
import time

BEGIN = time.perf_counter()
TUNED_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "2000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000",
                   "MALLOC_TOP_PAD_": "268435456"}
if "MALLOC_TOP_PAD_" not in os.environ:  # read by the C library before this program starts
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | TUNED_ALLOCATOR)

import numpy  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from noisy_patches import NoisyPatches, read  # noqa: E402


class DnCNN(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        layers = [nn.Conv2d(1, width, 3, padding=1), nn.ReLU(inplace=True)]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width, eps=1e-4),
                       nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(width, 1, 3, padding=1, bias=False))
        self.body = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(layers[-1].weight)  # starts by taking nothing away

    def forward(self, x):
        return x - self.body(x)


def validation_set(folder, sigma):
    pairs = []
    for file in sorted(pathlib.Path(folder).glob("*.png")):
        clean = read(file).astype(numpy.float32)[None, None] / 255
        numpy.random.seed(0)
        noise = numpy.random.normal(0, sigma / 255, clean.shape)
        pairs.append((torch.from_numpy((clean + noise).astype(numpy.float32)), torch.from_numpy(clean)))
    return pairs


@torch.inference_mode()
def evaluate(model, pairs):
    model.eval()
    psnr = [-10 * torch.log10(((model(noisy.to(memory_format=torch.channels_last)) - clean).double() ** 2).mean()).item()
            for noisy, clean in pairs]
    model.train()
    return sum(psnr) / len(psnr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-dir", required=True)
    parser.add_argument("--valid-dir", required=True)
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--depth", type=int, default=17)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--steps-per-epoch", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--patch-size", type=int, default=40)
    parser.add_argument("--optimizer", choices=("adam", "sgd"), default="adam")
    parser.add_argument("--init-lr", type=float)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=0)
    parser.add_argument("--milestones", type=lambda text: [int(n) for n in text.split(",")], default=[])
    parser.add_argument("--gamma", type=float, default=0.1)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint-dir", type=pathlib.Path, required=True)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    model = DnCNN(options.width, options.depth).to(memory_format=torch.channels_last)
    lr = options.init_lr or (0.1 if options.optimizer == "sgd" else 1e-3)
    optimizer = (torch.optim.SGD(model.parameters(), lr=lr, momentum=options.momentum, weight_decay=options.weight_decay)
                 if options.optimizer == "sgd" else
                 torch.optim.Adam(model.parameters(), lr=lr, weight_decay=options.weight_decay, fused=True))
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, options.milestones, options.gamma)
    data = NoisyPatches(options.train_dir, options.steps_per_epoch * options.batch_size, options.patch_size, options.sigma)
    loader = torch.utils.data.DataLoader(data, options.batch_size, shuffle=True, num_workers=options.num_workers, drop_last=True,
                                         persistent_workers=options.num_workers > 0, prefetch_factor=4 if options.num_workers else None)
    valid = validation_set(options.valid_dir, options.sigma)
    options.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    log = open(options.checkpoint_dir / "log.csv", "w")
    log.write("epoch,lr,loss,psnr,seconds\n")
    seconds = lambda: time.perf_counter() - BEGIN
    out_of_time = lambda: options.minutes > 0 and seconds() > 60 * options.minutes

    for epoch in range(1, options.epochs + 1):
        losses, begin, lr = torch.zeros(()), seconds(), optimizer.param_groups[0]["lr"]
        for step, (noisy, clean) in enumerate(loader, 1):
            prediction = model(noisy.to(memory_format=torch.channels_last))
            loss = nn.functional.mse_loss(prediction, clean.to(memory_format=torch.channels_last))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses += loss.detach()
            if out_of_time():
                break
        rate = step * options.batch_size / (seconds() - begin)
        psnr = evaluate(model, valid)
        log.write(f"{epoch},{lr:g},{losses.item() / step:.8f},{psnr:.4f},{seconds():.1f}\n")
        log.flush()
        print(f"epoch {epoch:3}  lr {lr:.2e}  loss {losses.item() / step:.6f}  PSNR {psnr:.3f} dB  {rate:.0f} images/s  "
              f"{seconds():.0f} s", flush=True)
        scheduler.step()
        torch.save(model.state_dict(), options.checkpoint_dir / "latest.pth")
        if out_of_time():
            break


if __name__ == "__main__":
    main()
