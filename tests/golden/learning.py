"""Makes learning_golden.hpp: torch.nn.utils.spectral_norm and weight_norm, SSIM, MS-SSIM and LPIPS, in float64.

    python tests/golden/learning.py > tests/golden/learning_golden.hpp

Element i of a tensor, counted in PyTorch's order, is sin(i + 1) for weights, 0.1 i for a bias, cos(i) for an input; u and v
start as unit vectors of equal numbers. Printed are, after two training passes with the loss sum(y^2): y, the gradient for each
parameter, and u. The pictures are a_i = (7919 i mod 1000) / 1000 smoothed by a box of 3 x 3 and b_i = 0.8 a_i + (31 i mod 17) / 85.
"""
import torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)


def show(name, numbers):
    print(f"inline constexpr double {name}[] = {{")
    for i in range(0, len(numbers), 5):
        print("    " + ", ".join(repr(x) for x in numbers[i:i + 5]) + ",")
    print("};")


def filled(f, *shape):
    t = torch.empty(shape)
    return torch.tensor([f(i) for i in range(t.numel())]).reshape(shape)


def wrap(layer, wrapper):
    with torch.no_grad():
        layer.weight.copy_(filled(lambda i: float(torch.sin(torch.tensor(float(i + 1)))), *layer.weight.shape))
        layer.bias.copy_(filled(lambda i: 0.1 * i, *layer.bias.shape))
    layer = wrapper(layer)
    if hasattr(layer, "weight_u"):
        for v in (layer.weight_u, layer.weight_v):
            v.copy_(torch.full_like(v, v.numel()**-0.5))
    return layer


def run(name, layer, x):
    for _ in range(2):
        layer.zero_grad()
        y = layer(x)
        (y * y).sum().backward()
    numbers = y.flatten().tolist()
    for key in sorted(dict(layer.named_parameters())):
        numbers += dict(layer.named_parameters())[key].grad.flatten().tolist()
    if hasattr(layer, "weight_u"):
        numbers += layer.weight_u.tolist()
    show(name, numbers)


def blurred(x, k):
    c = x.shape[1]
    x = F.conv2d(x, k[None, None, :, None].expand(c, 1, -1, 1), groups=c)
    return F.conv2d(x, k[None, None, None, :].expand(c, 1, 1, -1), groups=c)


def ssim_parts(a, b, size):
    d = torch.arange(size) - size // 2
    k = torch.exp(-d**2 / (2 * 1.5**2))
    k = k / k.sum()
    ma, mb = blurred(a, k), blurred(b, k)
    va, vb, cov = blurred(a * a, k) - ma * ma, blurred(b * b, k) - mb * mb, blurred(a * b, k) - ma * mb
    cs = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    ssim = (2 * ma * mb + 0.01**2) / (ma * ma + mb * mb + 0.01**2) * cs
    return ssim.mean((2, 3)), cs.mean((2, 3))


def ms_ssim(a, b, size):
    parts = []
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        ssim, cs = ssim_parts(a, b, size)
        parts.append(F.relu(cs if scale < 4 else ssim)**weight)
        pad = [s % 2 for s in a.shape[2:]]
        a, b = F.avg_pool2d(a, 2, padding=pad), F.avg_pool2d(b, 2, padding=pad)
    return torch.stack(parts).prod(0).mean()


def pictures(*shape):
    a = filled(lambda i: (7919 * i % 1000) / 1000, *shape)
    a = F.avg_pool2d(a, 3, 1, 1, count_include_pad=False)
    return a.requires_grad_(), 0.8 * a.detach() + filled(lambda i: (31 * i % 17) / 85, *shape)


def image_loss(name, loss, *shape):
    a, b = pictures(*shape)
    value = loss(a, b)
    value.backward()
    flat = a.grad.flatten()
    show(name, [value.item(), (flat * torch.cos(torch.arange(len(flat)))).sum().item()] + flat[::41].tolist())


def lpips(a, b):
    """lpips's formula for one layer, of features that are the images themselves and weights of 1, 2 and 3."""
    shift, scale = torch.tensor([-.030, -.088, -.188]), torch.tensor([.458, .448, .450])
    fa, fb = [((2 * x - 1) - shift[:, None, None]) / scale[:, None, None] for x in (a, b)]
    na, nb = [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (fa, fb)]
    return ((na - nb)**2 * torch.tensor([1., 2., 3.])[:, None, None]).sum(1).mean((1, 2)).mean()


print(f"// Made by learning.py with torch {torch.__version__.split('+')[0]}. Do not edit.")
print("#pragma once\n\nnamespace golden {\n")
spectral, by_length = torch.nn.utils.spectral_norm, torch.nn.utils.weight_norm
image, vector = filled(lambda i: float(torch.cos(torch.tensor(float(i)))), 1, 2, 3, 4), filled(lambda i: float(torch.cos(torch.tensor(float(i)))), 2, 4)
for kind, wrapper in ("spectral", spectral), ("weight", by_length):
    run(f"{kind}_conv", wrap(torch.nn.Conv2d(2, 3, 3, padding=1), wrapper), image)
    run(f"{kind}_transposed", wrap(torch.nn.ConvTranspose2d(2, 3, 4, 2, 1), wrapper), image)
    run(f"{kind}_linear", wrap(torch.nn.Linear(4, 3), wrapper), vector)
image_loss("ssim", lambda a, b: 1 - ssim_parts(a, b, 11)[0].mean(), 2, 2, 14, 13)
image_loss("ms_ssim", lambda a, b: 1 - ms_ssim(a, b, 3), 1, 2, 35, 37)
image_loss("lpips", lpips, 2, 3, 5, 4)
print("\n}  // namespace golden")
