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

LOSSES = {
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
