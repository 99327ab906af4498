#!/usr/bin/env python3
"""Compares the ready networks (include/strata/networks/) with their PyTorch originals.

    ready.py PROGRAM [NAME ...]        PROGRAM is interchange_ready

The originals are torchvision's and spandrel's; where no package has one (EDSR, FFDNet, U-Net, DCGAN), the published code's
modules are put together here from these packages' parts and from torch.nn. Each gets random weights, which the program loads
under the original's own names. Outputs at three sizes, one of them odd where the network takes such (else no multiple of 16), those
of the folded network, and those of the exported ONNX file in onnxruntime must agree to 1e-5 of the largest number. The originals compute
in float64. After one step back, every parameter's gradient, computed here in float64 too, must agree to 1e-9 of the largest number in
it. In float32 an activation beside a kink may fall to the other side, which changes single numbers: there the gradient as a whole
must agree to 1e-4 of its length, and the largest difference of a number is printed. Returns 77, which CTest
shows as skipped, when this Python lacks a module.
"""
import copy
import importlib
import pathlib
import re
import subprocess
import sys
import tempfile

NEEDS = ["torch", "torchvision", "spandrel", "onnxruntime", "safetensors", "numpy"]


def originals():
    """Two tables: name -> a function that makes (module, input channels, three sizes, size of the training image, our name of the
    original's name); and the same of small networks, with one size, for tests/golden/networks.py."""
    import torch
    from torch import nn
    from torchvision import models
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.DnCNN import DnCNN
    from spandrel.architectures.DRUNet import DRUNet
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet
    from spandrel.architectures.RCAN.__arch import rcan_arch as rcan
    from spandrel.architectures.__arch_helpers.dpir_basic_block import conv, sequential

    class EDSR(nn.Module):
        """EDSR-PyTorch's, of its parts as RCAN has them."""

        def __init__(self, factor=2, features=64, blocks=16):
            super().__init__()
            mean, deviation = (0.4488, 0.4371, 0.4040), (1.0, 1.0, 1.0)
            self.sub_mean = rcan.MeanShift(255, mean, deviation)
            self.add_mean = rcan.MeanShift(255, mean, deviation, 1)
            self.head = nn.Sequential(rcan.default_conv(3, features, 3))
            self.body = nn.Sequential(*(rcan.ResBlock(rcan.default_conv, features, 3) for _ in range(blocks)),
                                      rcan.default_conv(features, features, 3))
            self.tail = nn.Sequential(rcan.Upsampler(rcan.default_conv, factor, features), rcan.default_conv(features, 3, 3))

        def forward(self, x):
            x = self.head(self.sub_mean(x * 255))
            return self.add_mean(self.tail(x + self.body(x))) / 255

    class RCAN(rcan.RCAN):
        def forward(self, x):  # the original changes its input in place
            return super().forward(x.clone())

    class FFDNet(nn.Module):
        def __init__(self, channels=1, width=64, depth=15):
            super().__init__()
            self.model = sequential(conv(4 * channels + 1, width, mode="CR"), *(conv(width, width, mode="CR") for _ in range(depth - 2)),
                                    conv(width, 4 * channels, mode="C"))

        def forward(self, x):
            image, noise = nn.functional.pixel_unshuffle(x[:, :-1], 2), nn.functional.avg_pool2d(x[:, -1:], 2)
            return nn.functional.pixel_shuffle(self.model(torch.cat((image, noise), 1)), 2)

    class DoubleConv(nn.Module):
        def __init__(self, i, o):
            super().__init__()
            self.double_conv = nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU(),
                                             nn.Conv2d(o, o, 3, padding=1, bias=False), nn.BatchNorm2d(o), nn.ReLU())

        def forward(self, x):
            return self.double_conv(x)

    class Down(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(i, 2 * i))

        def forward(self, x):
            return self.maxpool_conv(x)

    class Up(nn.Module):
        def __init__(self, i):
            super().__init__()
            self.up, self.conv = nn.ConvTranspose2d(i, i // 2, 2, 2), DoubleConv(i, i // 2)

        def forward(self, x, beside):
            x = self.up(x)
            dy, dx = beside.shape[2] - x.shape[2], beside.shape[3] - x.shape[3]
            return self.conv(torch.cat([beside, nn.functional.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], 1))

    class UNet(nn.Module):
        def __init__(self, channels, classes, width):
            super().__init__()
            self.inc = DoubleConv(channels, width)
            for i in range(4):
                setattr(self, f"down{i + 1}", Down(width << i))
                setattr(self, f"up{i + 1}", Up(width << (4 - i)))
            self.outc = nn.Module()
            self.outc.conv = nn.Conv2d(width, classes, 1)

        def forward(self, x):
            skips = [self.inc(x)]
            for down in (self.down1, self.down2, self.down3, self.down4):
                skips.append(down(skips[-1]))
            x = skips.pop()
            for up in (self.up1, self.up2, self.up3, self.up4):
                x = up(x, skips.pop())
            return self.outc.conv(x)

    # As pytorch/examples has them, but for the sigmoid at the discriminator's end, which losses of logits include.
    class Main(nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.main = nn.Sequential(*layers)

        def forward(self, x):
            return self.main(x)

    def generator(latent, width):
        layers = [nn.ConvTranspose2d(latent, 8 * width, 4, 1, 0, bias=False), nn.BatchNorm2d(8 * width), nn.ReLU()]
        for of in (8, 4, 2):
            layers += [nn.ConvTranspose2d(of * width, of * width // 2, 4, 2, 1, bias=False), nn.BatchNorm2d(of * width // 2), nn.ReLU()]
        return Main(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh())

    def discriminator(width):
        layers = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for of in (1, 2, 4):
            layers += [nn.Conv2d(of * width, 2 * of * width, 4, 2, 1, bias=False), nn.BatchNorm2d(2 * of * width), nn.LeakyReLU(0.2)]
        return Main(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False))

    class Features(nn.Module):
        def __init__(self, features):
            super().__init__()
            self.features = features

        def forward(self, x):
            return self.features(x)

    class Classes(nn.Module):
        """Ours give images of one pixel."""

        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x)[..., None, None]

    def basic_sr(blocks):
        """The names of BasicSR and Real-ESRGAN for those of the first ESRGAN, which spandrel's module has."""
        places = {"model.0": "conv_first", f"model.1.sub.{blocks}": "conv_body", "model.3": "conv_up1", "model.6": "conv_up2",
                  "model.8": "conv_hr", "model.10": "conv_last"}

        def name(old):
            block = re.fullmatch(r"model\.1\.sub\.(\d+)\.RDB(\d)\.conv(\d)\.0\.(weight|bias)", old)
            if block:
                return "body.{}.rdb{}.conv{}.{}".format(*block.groups())
            place, leaf = old.rsplit(".", 1)
            return f"{places[place]}.{leaf}"
        return name

    plain = lambda name: name
    bare = lambda name: name.removeprefix("net.")
    any_size, even, by_8, by_16 = [(24, 24), (17, 29), (1, 40)], [(24, 24), (18, 30), (2, 40)], [(32, 32), (24, 40), (8, 56)], [(32, 32), (48, 80), (16, 48)]
    large = [(64, 64), (97, 65), (33, 40)]
    def nafnet(width, encoder, middle, decoder):
        net = NAFNet(width=width, enc_blk_nums=encoder, middle_blk_num=middle, dec_blk_nums=decoder)
        for key, parameter in net.named_parameters():
            if key.endswith(("beta", "gamma")):  # they start with 0, and nothing of a block would be seen
                nn.init.normal_(parameter, 0, 0.3)
        return net

    full = {
        "edsr": lambda: (EDSR(), 3, any_size, (17, 21), plain),
        "srvgg": lambda: (Compact(), 3, any_size, (17, 21), plain),
        "rrdb": lambda: (RRDBNet(num_blocks=2), 3, any_size, (17, 21), basic_sr(2)),
        "rcan": lambda: (RCAN(scale=3, n_resgroups=2, n_resblocks=3), 3, any_size, (17, 21), plain),
        "dncnn": lambda: (DnCNN(act_mode="R"), 1, any_size, (17, 21), plain),
        "ffdnet": lambda: (FFDNet(), 2, even, (18, 22), plain),
        "drunet": lambda: (DRUNet(in_nc=4, out_nc=3), 4, by_8, (24, 16), plain),
        "nafnet": lambda: (nafnet(32, [2, 2, 4, 8], 12, [2, 2, 2, 2]), 3, by_16, (48, 32), plain),
        "vgg19": lambda: (Features(models.vgg19().features), 3, large, (33, 47), plain),
        "mobilenet_v2": lambda: (Classes(models.mobilenet_v2(dropout=0)), 3, large, (161, 129), bare),
        "unet": lambda: (UNet(3, 2, 32), 3, by_16, (48, 32), plain),
        "resnet18": lambda: (Classes(models.resnet18()), 3, large, (129, 97), bare),
        "dcgan_generator": lambda: (generator(100, 64), 100, [(1, 1)] * 3, (1, 1), plain),
        "dcgan_discriminator": lambda: (discriminator(64), 3, [(64, 64)] * 3, (64, 64), plain),
        "resnet50": lambda: (Classes(models.resnet50()), 3, large, (129, 97), bare),
    }
    small = {
        "edsr": lambda: (EDSR(2, 8, 2), 3, (9, 7), plain),
        "srvgg": lambda: (Compact(num_feat=8, num_conv=2, upscale=2), 3, (9, 7), plain),
        "rcan": lambda: (RCAN(scale=3, n_resgroups=1, n_resblocks=2, n_feats=16, reduction=4), 3, (9, 7), plain),
        "dncnn": lambda: (DnCNN(nc=8, nb=4, act_mode="R"), 1, (9, 7), plain),
        "ffdnet": lambda: (FFDNet(1, 8, 4), 2, (10, 6), plain),
        "drunet": lambda: (DRUNet(in_nc=2, nc=[8, 16, 32, 64], nb=1), 2, (16, 8),
                           lambda key: key.replace("m_body.res", "m_body.0.res")),  # of one block it makes no list
        "nafnet": lambda: (nafnet(8, [1, 1, 1, 2], 1, [1, 1, 1, 1]), 3, (32, 16), plain),
        "unet": lambda: (UNet(3, 2, 8), 3, (32, 16), plain),
        "resnet18": lambda: (Classes(models.resnet18(num_classes=5)), 3, (37, 21), bare),
        "dcgan_generator": lambda: (generator(12, 4), 12, (1, 1), plain),
        "dcgan_discriminator": lambda: (discriminator(4), 3, (64, 64), plain),
    }
    return full, small


def randomise(net):
    """Batch norms whose numbers are not 0 and 1."""
    import torch
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
            torch.nn.init.normal_(module.running_mean, 0, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)


class Differs(Exception):
    pass


def largest_difference(what, got, wanted, allowed):
    """In parts of the largest number."""
    if got.shape != wanted.shape:
        raise Differs(f"{what}: has shape {tuple(got.shape)}, wanted {tuple(wanted.shape)}")
    difference = float((got.double() - wanted).abs().max() / wanted.abs().max())
    if not difference <= allowed:
        raise Differs(f"{what}: differs by {difference:.2e}, allowed is {allowed}")
    return difference


def check(program, folder, name, make):
    import onnxruntime
    import torch
    from safetensors.torch import load_file, save_file
    torch.manual_seed(0)
    net, channels, sizes, train_size, ours = make()
    randomise(net)
    images = {f"input{i}": torch.rand(2, channels, *size) for i, size in enumerate(sizes)} | {"train": torch.rand(2, channels, *train_size)}
    save_file({ours(key): tensor for key, tensor in net.state_dict().items()}, folder / f"{name}.safetensors")
    save_file(images, folder / f"{name}.images.safetensors")
    subprocess.run([program, folder, name], check=True)
    answers = load_file(folder / f"{name}.answers.safetensors")
    net.double()
    net.eval()
    onnxruntime.set_default_logger_severity(3)
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx")
    worst = {"output": 0, "folded": 0, "onnxruntime": 0}
    for i in range(3):
        x = images[f"input{i}"]
        with torch.no_grad():
            y = net(x.double())
        outputs = {"output": answers[f"output{i}"], "folded": answers[f"folded{i}"],
                   "onnxruntime": torch.from_numpy(session.run(None, {"input": x.numpy()})[0]).reshape(y.shape)}
        for kind, got in outputs.items():
            worst[kind] = max(worst[kind], largest_difference(f"{name}: {kind} for {tuple(x.shape)}", got, y, 1e-5))
    # Batch norm over few pixels magnifies rounding, PyTorch's too: twice the error that its own float32 makes is allowed as well.
    net.train()
    single = copy.deepcopy(net).float()
    y, single_y = net(images["train"].double()), single(images["train"])
    y.square().mean().backward()
    single_y.square().mean().backward()
    error = lambda got, wanted: 2 * float((got.detach().double() - wanted).abs().max() / wanted.abs().max())
    trained = y.detach()
    worst["training"] = largest_difference(f"{name}: output in training", answers.pop("trained"), trained, max(1e-5, error(single_y, trained)))
    fixed = [key for key, module in net.named_modules() if type(module).__name__ == "MeanShift"]
    learned = {key: parameter.grad for key, parameter in net.named_parameters() if key.rsplit(".", 1)[0] not in fixed}
    largest = max(float(gradient.abs().max()) for gradient in learned.values())
    singles = dict(single.named_parameters())
    worst |= {"gradients in float64": 0, "in float32": 0}
    squares = {"all": 0, "ours": 0, "theirs": 0}
    for key, wanted in learned.items():
        # What is 0 but for rounding, as a bias in front of a batch norm, has the largest of all as its measure.
        scale = max(float(wanted.abs().max()), 1e-6 * largest)
        wide, got = answers.pop("grad64." + ours(key)), answers.pop("grad." + ours(key)).double()
        if not (difference := float((wide - wanted).abs().max()) / scale) <= 1e-9:
            raise Differs(f"{name}: gradient of {key} in float64: differs by {difference:.2e}, allowed is 1e-9")
        worst["gradients in float64"] = max(worst["gradients in float64"], difference)
        worst["in float32"] = max(worst["in float32"], float((got - wanted).abs().max()) / scale)
        squares["all"] += float(wanted.square().sum())
        squares["ours"] += float((got - wanted).square().sum())
        squares["theirs"] += float((singles[key].grad.double() - wanted).square().sum())
    assert not [key for key in answers if key.startswith("grad")], "gradients of what the original does not have"
    length, theirs = ((squares[which] / squares["all"]) ** 0.5 for which in ("ours", "theirs"))
    worst |= {"of their length": length, "PyTorch's in float32": theirs}
    if not length <= max(1e-4, 2 * theirs):
        raise Differs(f"{name}: gradients in float32 differ by {length:.2e} of their length, PyTorch's by {theirs:.2e}")
    print(f"{name}: largest differences: {', '.join(f'{kind} {value:.1e}' for kind, value in worst.items())}", flush=True)


def main():
    program, *names = sys.argv[1:]
    for module in NEEDS:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"SKIPPED: {sys.executable} has no module {error.name}; scripts/python_tests.sh makes one that has")
            return 77
    networks, _ = originals()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in names or networks:
            try:
                check(program, pathlib.Path(folder), name, networks[name])
            except Differs as difference:
                failed += 1
                print(f"FAILED: {difference}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
