"""Makes losses_golden.hpp: values and gradients of PyTorch's losses, in float64.

    python tests/golden/losses.py > tests/golden/losses_golden.hpp

Everything has the shape (2, 3, 2, 3). Element i of the prediction, counted in PyTorch's order, is round(8 sin(i + 1)) / 4, of
the target round(8 cos(2 i)) / 4, so that differences of 0 and at the kinks occur; the target of BCE is
min(max(0.5 + 0.7 cos(2 i), 0), 1), and the label of pixel i is i % 3. The test makes the same numbers. Printed are the value
and then the gradient for the prediction.
"""
import math

import torch
import torch.nn.functional as F

SHAPE, COUNT = (2, 3, 2, 3), 36


def tensor(f):
    return torch.tensor([f(i) for i in range(COUNT)], dtype=torch.float64).reshape(SHAPE)


prediction = tensor(lambda i: round(8 * math.sin(i + 1)) / 4)
target = tensor(lambda i: round(8 * math.cos(2 * i)) / 4)
probabilities = tensor(lambda i: min(max(0.5 + 0.7 * math.cos(2 * i), 0.0), 1.0))
labels = torch.tensor([i % 3 for i in range(12)]).reshape(2, 2, 3)



def dice(p, t, smooth=1e-5, batch=False, first=0):
    """MONAI's, from probabilities and areas."""
    over = (0, 2, 3) if batch else (2, 3)
    both, total = (p * t).sum(over), p.sum(over) + t.sum(over)
    return (1 - (2 * both + smooth) / (total + smooth))[..., first:].mean()


def total_variation(p):
    return (p[:, :, 1:] - p[:, :, :-1]).abs().mean() + (p[..., 1:] - p[..., :-1]).abs().mean()


def edges(p, kernels, epsilon=0.0):
    d = F.pad(p - target, (1, 1, 1, 1), mode="replicate").reshape(6, 1, 4, 5)
    e = F.conv2d(d, torch.tensor(kernels, dtype=torch.float64)[:, None])
    return (e.abs() if epsilon == 0 else (e * e + epsilon**2).sqrt()).mean()


SOBEL = [[[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]]
LAPLACIAN = [[[0, 1, 0], [1, -4, 1], [0, 1, 0]]]
areas = F.one_hot(labels, 3).permute(0, 3, 1, 2).double()
weight = torch.tensor([0.5, 2.0, 1.25], dtype=torch.float64)


def focal(p, t, gamma, alpha, reduction):
    """torchvision.ops.sigmoid_focal_loss."""
    own = torch.sigmoid(p) * t + (1 - torch.sigmoid(p)) * (1 - t)
    loss = F.binary_cross_entropy_with_logits(p, t, reduction="none") * (1 - own)**gamma
    if alpha >= 0:
        loss = (alpha * t + (1 - alpha) * (1 - t)) * loss
    return loss.mean() if reduction == "mean" else loss.sum()


def focal_labels(p, gamma, ignored=-100):
    log = F.log_softmax(p, 1).gather(1, labels[:, None])[:, 0][labels != ignored]
    return (-(1 - log.exp())**gamma * log).mean()


LOSSES = {
    "cross_entropy_weight": lambda p: F.cross_entropy(p, labels, weight=weight),
    "cross_entropy_ignore": lambda p: F.cross_entropy(p, labels, ignore_index=1),
    "cross_entropy_both": lambda p: F.cross_entropy(p, labels, weight=weight, ignore_index=2, label_smoothing=0.2),
    "cross_entropy_both_sum": lambda p: F.cross_entropy(p, labels, weight=weight, ignore_index=0, label_smoothing=0.2,
                                                        reduction="sum"),
    "kl_div": lambda p: F.kl_div(p, probabilities),
    "kl_div_batchmean": lambda p: F.kl_div(p, probabilities, reduction="batchmean"),
    "kl_div_log": lambda p: F.kl_div(p, target, log_target=True),
    "dice_labels": lambda p: dice(torch.softmax(p, 1), areas),
    "dice_foreground": lambda p: dice(torch.softmax(p, 1), areas, 1.0, True, 1),
    "dice_areas": lambda p: dice(torch.sigmoid(p), probabilities),
    "focal": lambda p: focal(p, probabilities, 2, 0.25, "mean"),
    "focal_sum": lambda p: focal(p, probabilities, 1.5, -1, "sum"),
    "focal_labels": lambda p: focal_labels(p, 2),
    "dice_ignore": lambda p: dice(torch.softmax(p, 1) * (labels != 1)[:, None], areas * (labels != 1)[:, None]),
    "focal_ignore": lambda p: focal_labels(p, 2, 1),
    "nll": lambda p: F.nll_loss(p, labels),
    "nll_both": lambda p: F.nll_loss(p, labels, weight=weight, ignore_index=2),
    "nll_both_sum": lambda p: F.nll_loss(p, labels, weight=weight, ignore_index=0, reduction="sum"),
    "total_variation": total_variation,
    "edge_sobel": lambda p: edges(p, SOBEL),
    "edge_laplacian": lambda p: edges(p, LAPLACIAN, 0.5),
    "gan_vanilla": lambda p: (F.binary_cross_entropy_with_logits(p, torch.full_like(p, 0.9)) +
                              F.binary_cross_entropy_with_logits(target - p, torch.zeros_like(p))),
    "gan_least_squares": lambda p: F.mse_loss(p, torch.ones_like(p)) + F.mse_loss(target - p, torch.zeros_like(p)),
    "gan_hinge": lambda p: F.relu(1 - p).mean() + F.relu(1 + target - p).mean(),
    "gan_wasserstein": lambda p: (target - p).mean() - p.mean(),
    "generator_vanilla": lambda p: F.binary_cross_entropy_with_logits(p, torch.ones_like(p)),
    "generator_least_squares": lambda p: F.mse_loss(p, torch.ones_like(p)),
    "generator_hinge": lambda p: -p.mean(),
    "huber": lambda p: F.huber_loss(p, target),
    "huber_sum": lambda p: F.huber_loss(p, target, reduction="sum", delta=0.5),
    "smooth_l1": lambda p: F.smooth_l1_loss(p, target),
    "smooth_l1_sum": lambda p: F.smooth_l1_loss(p, target, reduction="sum", beta=0.5),
    "smooth_l1_zero": lambda p: F.smooth_l1_loss(p, target, beta=0),
    "bce": lambda p: F.binary_cross_entropy_with_logits(p, probabilities),
    "bce_sum": lambda p: F.binary_cross_entropy_with_logits(40 * p, probabilities, reduction="sum",
                                                            pos_weight=torch.tensor(2.5)),
    "cross_entropy_smooth": lambda p: F.cross_entropy(p, labels, label_smoothing=0.1),
    "cross_entropy_smooth_sum": lambda p: F.cross_entropy(p, labels, label_smoothing=0.6, reduction="sum"),
}

print(f"// Made by losses.py with torch {torch.__version__.split('+')[0]}. Do not edit.")
print("#pragma once\n\nnamespace golden {\n")
for name, loss in LOSSES.items():
    p = prediction.clone().requires_grad_()
    value = loss(p)
    value.backward()
    numbers = [value.item()] + p.grad.reshape(-1).tolist()
    print(f"inline constexpr double {name}[] = {{")
    for i in range(0, len(numbers), 5):
        print("    " + ", ".join(repr(x) for x in numbers[i:i + 5]) + ",")
    print("};")
print("\n}  // namespace golden")
