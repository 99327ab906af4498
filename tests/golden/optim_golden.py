"""Makes optim_golden.hpp: what torch.optim, torch.optim.lr_scheduler, clip_grad_norm_, AveragedModel and GradScaler give.

    python tests/golden/optim_golden.py > tests/golden/optim_golden.hpp

The network is two parameters, a weight of 4 x 3 and a bias of 5. Value i starts as sin(i + 1), i counted over both, and
the gradient of step t is cos(0.7 * (t + 1) * (i + 1)): the test makes the same numbers. Printed are the values after
12 steps (20 of RMSprop), in float64 and in float32. lr is 0.05 for the first 6 steps and 0.02 then.
"""
import math

import torch

SIZES = (12, 5)
STEPS = 12


def parameters(dtype):
    numbers = [math.sin(i + 1) for i in range(sum(SIZES))]
    return [torch.nn.Parameter(torch.tensor(numbers[:12], dtype=dtype).reshape(4, 3)),
            torch.nn.Parameter(torch.tensor(numbers[12:], dtype=dtype))]


def set_gradients(params, t):
    first = 0
    for p in params:
        numbers = [math.cos(0.7 * (t + 1) * (first + i + 1)) for i in range(p.numel())]
        p.grad = torch.tensor(numbers, dtype=p.dtype).reshape(p.shape)
        first += p.numel()


def run(make, dtype, steps=STEPS):
    params = parameters(dtype)
    optimizer = make(params)
    for t in range(steps):
        if t == 6:
            for group in optimizer.param_groups:
                group["lr"] = 0.02
        set_gradients(params, t)
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in params]).tolist()


def row(name, numbers):
    print(f"inline constexpr double {name}[] = {{")
    for i in range(0, len(numbers), 4):
        print("    " + ", ".join(repr(x) for x in numbers[i:i + 4]) + ",")
    print("};")


OPTIMIZERS = {
    "sgd_plain": lambda p: torch.optim.SGD(p, lr=0.05, weight_decay=0.01),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "sgd_dampening": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8, dampening=0.3),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05, betas=(0.8, 0.99), eps=1e-6),
    "adam_decay": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
}
# Twenty steps of these.
LONG_OPTIMIZERS = {
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.05),
    "rmsprop_momentum": lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.9, eps=1e-6, momentum=0.8, weight_decay=0.01),
    "rmsprop_centered": lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.8, centered=True),
    "rmsprop_all": lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.95, momentum=0.5, weight_decay=0.1, centered=True),
}


def lrs(make, count):
    optimizer = torch.optim.SGD(parameters(torch.float64), lr=0.1)
    scheduler = make(optimizer)
    out = []
    for _ in range(count):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


S = torch.optim.lr_scheduler
SCHEDULERS = {
    "step_lr": lambda o: S.StepLR(o, step_size=3, gamma=0.5),
    "multi_step_lr": lambda o: S.MultiStepLR(o, milestones=[2, 3, 9], gamma=0.1),
    "cosine_lr": lambda o: S.CosineAnnealingLR(o, T_max=8, eta_min=0.01),
    "linear_lr": lambda o: S.LinearLR(o, start_factor=0.1, end_factor=0.9, total_iters=4),
    "sequential_lr": lambda o: S.SequentialLR(
        o, [S.LinearLR(o, start_factor=0.1, total_iters=4), S.CosineAnnealingLR(o, T_max=8),
            S.StepLR(o, step_size=2, gamma=0.5)], milestones=[4, 10]),
}
# Printed over a hundred steps.
LONG_SCHEDULERS = {
    "exponential_lr": lambda o: S.ExponentialLR(o, gamma=0.95),
    "polynomial_lr": lambda o: S.PolynomialLR(o, total_iters=80, power=1.7),
    "cosine_restarts_lr": lambda o: S.CosineAnnealingWarmRestarts(o, T_0=7, eta_min=0.01),
    "cosine_restarts_longer_lr": lambda o: S.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=3),
    "one_cycle_lr": lambda o: S.OneCycleLR(o, max_lr=0.5, total_steps=100, cycle_momentum=False),
    "one_cycle_other_lr": lambda o: S.OneCycleLR(o, max_lr=0.2, total_steps=101, pct_start=0.123, div_factor=4,
                                                 final_div_factor=50, cycle_momentum=False),
}


def metric(i):
    """What ReduceLROnPlateau looks at after epoch i: multiples of 1/64, so that the test's are the same."""
    return round(64 * (math.cos(0.3 * i) / (1 + 0.05 * i) + 0.2)) / 64


PLATEAUS = {
    "plateau_min_rel": dict(mode="min", factor=0.5, patience=3, threshold=0.1, cooldown=2, min_lr=0.001),
    "plateau_max_rel": dict(mode="max", factor=0.3, patience=5, threshold=0.01, threshold_mode="rel"),
    "plateau_min_abs": dict(mode="min", factor=0.7, patience=0, threshold=0.05, threshold_mode="abs", cooldown=4),
    "plateau_max_abs": dict(mode="max", factor=0.9, patience=2, threshold=0.0, threshold_mode="abs", min_lr=0.05, eps=0.002),
}


def plateau_lrs(options):
    optimizer = torch.optim.SGD(parameters(torch.float64), lr=0.1)
    scheduler = S.ReduceLROnPlateau(optimizer, **options)
    out = []
    for i in range(100):
        scheduler.step(metric(i))
        out.append(optimizer.param_groups[0]["lr"])
    return out


def clip(dtype, max_norm):
    params = parameters(dtype)
    set_gradients(params, 0)
    norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
    return [norm.item()] + torch.cat([p.grad.reshape(-1) for p in params]).tolist()


def ema(dtype):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = parameters(dtype)

    net = Net()
    average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for t in range(STEPS):
        set_gradients([net.weight, net.bias], t)
        optimizer.step()
        average.update_parameters(net)
    return torch.cat([p.detach().reshape(-1) for p in average.module.parameters()]).tolist()


def grad_scaler(dtype):
    """The scale before each of 24 steps with Adam, then the values after them; in steps 4, 5 and 11 a gradient is infinite."""
    params = parameters(dtype)
    optimizer = torch.optim.Adam(params, lr=0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_factor=4.0, backoff_factor=0.5, growth_interval=3)
    scales = []
    for t in range(24):
        scales.append(scaler.get_scale())
        scaler.scale(torch.zeros(()))  # makes the scaler's tensors
        set_gradients(params, t)
        for p in params:
            p.grad *= scaler.get_scale()
        if t in (4, 5, 11):
            params[1].grad[3] = math.inf
        scaler.step(optimizer)
        scaler.update()
    return scales + torch.cat([p.detach().reshape(-1) for p in params]).tolist()


print(f"// Made by optim_golden.py with torch {torch.__version__.split('+')[0]}. Do not edit.")
print("#pragma once\n\nnamespace golden {\n")
for name, make in OPTIMIZERS.items():
    row(name + "_float64", run(make, torch.float64))
    row(name + "_float32", run(make, torch.float32))
for name, make in LONG_OPTIMIZERS.items():
    row(name + "_float64", run(make, torch.float64, 20))
    row(name + "_float32", run(make, torch.float32, 20))
for name, make in SCHEDULERS.items():
    row(name, lrs(make, 16))
for name, make in LONG_SCHEDULERS.items():
    row(name, lrs(make, 100))
for name, options in PLATEAUS.items():
    row(name, plateau_lrs(options))
row("clip_norm_float64", clip(torch.float64, 0.5))
row("clip_norm_float32", clip(torch.float32, 0.5))
row("ema_float64", ema(torch.float64))
row("ema_float32", ema(torch.float32))
row("grad_scaler_float64", grad_scaler(torch.float64))
row("grad_scaler_float32", grad_scaler(torch.float32))
print("\n}  // namespace golden")
