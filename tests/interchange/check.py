#!/usr/bin/env python3
"""Compares Strata's files and results with those of other programs.

    check.py pytorch|onnxruntime|opencv PROGRAM        PROGRAM is interchange_networks

pytorch: weights of Strata in PyTorch's twin, with strict names, and PyTorch's .pth files in Strata. onnxruntime: the
exported networks, after onnx.checker has looked at them. opencv: the same networks in OpenCV's reader. All outputs must
agree to 1e-5, relative where they are above 1. Returns 77, which CTest shows as skipped, when this Python lacks a module.
"""
import importlib
import pathlib
import subprocess
import sys
import tempfile

NEEDS = {"pytorch": ["torch", "safetensors"], "onnxruntime": ["onnx", "onnxruntime", "safetensors", "numpy"],
         "opencv": ["cv2", "safetensors", "numpy"]}
DEPLOYED = ["denoiser", "classifier", "ffdnet", "super_resolution", "norms"]
NETWORKS = ["denoiser", "upscaler", "classifier", "fixed_classifier", "gated", "ffdnet", "super_resolution", "norms", "masked",
            *("deployed_" + name for name in DEPLOYED)]
TOLERANCE = 1e-5


def close(name, got, wanted):
    """The largest difference, in parts of max(1, |wanted|)."""
    import numpy
    if got.shape != wanted.shape:
        sys.exit(f"{name}: the output has shape {got.shape}, wanted {wanted.shape}")
    difference = float(numpy.max(numpy.abs(got - wanted) / numpy.maximum(1, numpy.abs(wanted))))
    print(f"{name}: {got.shape}, largest difference {difference:.2e}, largest value {numpy.max(numpy.abs(wanted)):.2f}")
    if not difference <= TOLERANCE:
        sys.exit(f"{name}: differs by {difference:.2e}, allowed is {TOLERANCE}")


def samples(folder, name):
    """Inputs and outputs of three sizes."""
    from safetensors.numpy import load_file
    images = load_file(folder / f"{name}.images.safetensors")
    for i in range(3):
        yield images[f"input{i}"], images[f"output{i}"]


def flat(wanted, got):
    """Strata's classes are images of one pixel; elsewhere they are rows."""
    return wanted.reshape(wanted.shape[:2]) if got.ndim == 2 and wanted.shape[2:] == (1, 1) else wanted


def check_onnxruntime(folder):
    import onnx
    import onnxruntime
    onnxruntime.set_default_logger_severity(3)
    for name in NETWORKS:
        for kind in ("", ".folded"):
            file = folder / f"{name}{kind}.onnx"
            model = onnx.load(file)
            onnx.checker.check_model(model, full_check=True)
            assert model.opset_import[0].version == 17 and {p.key: p.value for p in model.metadata_props} == {"made by": "a test"}
            left = sum(node.op_type == "BatchNormalization" for node in model.graph.node)
            if kind or name.startswith("deployed_"):
                alone = 2 if name == "norms" else 0  # which no convolution takes
                assert left == alone, f"{file.name}: {left} batch norms are left, wanted {alone}"
            dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
            assert dims == ["batch", dims[1], "height", "width"], dims
            session = onnxruntime.InferenceSession(file)
            for x, y in samples(folder, name):
                got = session.run(None, {"input": x})[0]
                close(file.name, got, flat(y, got))
            beside = [onnx.numpy_helper.to_array(onnx.load_tensor(file.with_suffix(f".{which}.pb"))) for which in ("input", "output")]
            close(f"{file.name}, the pair beside it", session.run(None, {"input": beside[0]})[0], beside[1])


def check_opencv(folder):
    import cv2
    for name in NETWORKS:
        if name == "masked":
            continue  # parts of images of any size: OpenCV's reader wants the sizes of slices beforehand
        for kind in ("", ".folded"):
            for x, y in samples(folder, name):
                network = cv2.dnn.readNetFromONNX(str(folder / f"{name}{kind}.onnx"))
                network.setInput(x)
                got = network.forward()
                close(f"{name}{kind}", got, flat(y, got))


def check_pytorch(folder, program):
    import torch
    from safetensors.torch import load_file, save_file
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, name, body):
            super().__init__()
            self.name = name
            setattr(self, name, body)

        def forward(self, x):
            return x - getattr(self, self.name)(x)

    def block():
        return [nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]

    def spliced(name):
        layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), *block(), *block(), *block(), nn.Conv2d(8, 1, 3, padding=1)]
        return Residual(name, nn.Sequential(*layers))

    def nested(name):
        middle = nn.Sequential(*(nn.Sequential(*block()) for _ in range(3)))
        return Residual(name, nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), middle, nn.Conv2d(8, 1, 3, padding=1)))

    def classifier():
        return nn.Sequential(nn.Conv2d(1, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(), nn.MaxPool2d(2, 1), nn.AvgPool2d(2),
                             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 8), nn.PReLU(8), nn.Linear(8, 4), nn.Sigmoid())

    def fixed_classifier():
        return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(), nn.Flatten(),
                             nn.Linear(120, 7, bias=False), nn.ReLU(), nn.Unflatten(1, (7, 1, 1)), nn.Conv2d(7, 3, 1))

    class ScaledBlock(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.PReLU(6), nn.Conv2d(6, 6, 3, padding=2, dilation=2))

        def forward(self, x):
            return x + 0.5 * self.body(x)

    class Upscaler(nn.Module):
        def __init__(self, splice):
            super().__init__()
            blocks = [ScaledBlock(), ScaledBlock()]
            self.coarse = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 6, 3, padding=1), nn.LeakyReLU(0.2),
                                        *(blocks if splice else [nn.Sequential(*blocks)]), nn.PReLU(), nn.Conv2d(6, 8, 1),
                                        nn.Tanh(), nn.ConvTranspose2d(8, 2, 4, stride=2, padding=1))
            self.fine = nn.Sequential(nn.Conv2d(2, 2, 5, padding=2), nn.BatchNorm2d(2))
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Sigmoid())
            self.join = nn.Sequential(nn.Conv2d(4, 12, 3, padding=1), nn.SiLU(), nn.PixelShuffle(2))

        def forward(self, x):
            a, b = self.coarse(x), self.fine(x)
            c = torch.minimum(torch.maximum(a, b), a.abs() + 0.1) / (torch.exp(-b.square()) + torch.sqrt(a.square() + 1e-3))
            return self.join(torch.cat([c - b * self.gate(b), torch.log(b.abs() + 1)], 1)).clamp(-0.5, 1.5) * 2

    class LayerNorm2d(nn.LayerNorm):
        def forward(self, x):
            return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.GELU())
            self.left = nn.Sequential(nn.Conv2d(12, 12, 5, padding=2, groups=12), LayerNorm2d(12, eps=1e-6), nn.Conv2d(12, 12, 1),
                                      nn.ELU(), nn.Upsample(scale_factor=2))
            self.right = nn.Sequential(nn.InstanceNorm2d(12), nn.Hardswish(), nn.Softplus(),
                                       nn.Upsample(scale_factor=2, mode="bilinear"))
            self.tail = nn.Conv2d(6, 2, 3, padding=1)

        def forward(self, x):
            y = self.head(x)
            a, b = (0.25 * (self.left(y) + self.right(y))).chunk(2, dim=1)
            return self.tail(a * b)

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            spectral, by_length = nn.utils.spectral_norm, nn.utils.weight_norm
            self.head = spectral(nn.Conv2d(3, 8, 3, padding=1))
            self.mask = nn.Sequential(nn.GELU(approximate="tanh"), by_length(nn.Conv2d(8, 1, 1)))
            self.tail = nn.Sequential(nn.AdaptiveMaxPool2d((3, 2)), spectral(nn.ConvTranspose2d(8, 5, 4, stride=2, padding=1)),
                                      nn.LogSoftmax(dim=1))

        def forward(self, x):
            y = self.head(x)
            m = self.mask(y)
            return self.tail(y * torch.sigmoid(m) + torch.minimum(m, y) / (1 + m * m))

    torch.manual_seed(0)
    def load_by_order(twin, state):
        """For twins with a layer more, as Flatten before Linear, so that the numbers behind it are higher."""
        layers = {}
        for key in sorted(state, key=lambda key: int(key.split(".")[0])):
            layers.setdefault(key.split(".")[0], {})[key.split(".")[1]] = state[key]
        modules = [module for module in twin if module.state_dict()]
        assert len(modules) == len(layers)
        for module, weights in zip(modules, layers.values()):
            module.load_state_dict(weights, strict=True)

    for name, kind, twin in [("denoiser", "", nested("body")), ("denoiser", ".spliced", spliced("body")),
                             ("upscaler", "", Upscaler(False)), ("upscaler", ".spliced", Upscaler(True)),
                             ("gated", "", Gated()), ("masked", "", Masked()), ("classifier", "", classifier()), ("fixed_classifier", "", fixed_classifier())]:
        state = load_file(folder / f"{name}{kind}.safetensors")
        if isinstance(twin, nn.Sequential):
            load_by_order(twin, state)
        else:
            twin.load_state_dict(state, strict=True)
        twin.eval()
        for x, y in samples(folder, name):
            with torch.no_grad():
                got = twin(torch.from_numpy(x)).numpy()
            close(f"{name}{kind} in PyTorch", got, flat(y, got))

    # The other way: networks made in PyTorch, as their authors would write and save them.
    x = torch.rand(2, 1, 19, 23)
    wanted = {}
    for name, net in {"from_pytorch_nested.pth": nested("body"), "from_pytorch_spliced.pth": spliced("model"),
                      "from_pytorch_legacy.pth": spliced("model"), "from_pytorch_order.safetensors": spliced("any")}.items():
        net.train()
        for _ in range(3):
            net(torch.rand(4, 1, 8, 8))  # statistics
        net.eval()
        state = net.state_dict()
        if name.endswith(".safetensors"):
            save_file(state, folder / name)
        elif "spliced" in name:
            torch.save({"epoch": 1, "state_dict": {"module." + key: value for key, value in state.items()}}, folder / name)
        else:
            torch.save(state, folder / name, _use_new_zipfile_serialization="legacy" not in name)
        with torch.no_grad():
            wanted[name] = net(x).numpy()
    save_file({"input": x}, folder / "images.safetensors")
    subprocess.run([program, "read", folder], check=True)
    for name, output in load_file(folder / "outputs.safetensors").items():
        close(f"{name} in Strata", output.numpy(), wanted.pop(name))
    assert not wanted


def main():
    mode, program = sys.argv[1:]
    for module in NEEDS[mode]:
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(f"SKIPPED: {sys.executable} has no module {error.name}; scripts/python_tests.sh makes one that has")
            return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        subprocess.run([program, "write", folder], check=True)
        if mode == "pytorch":
            check_pytorch(folder, program)
        else:
            {"onnxruntime": check_onnxruntime, "opencv": check_opencv}[mode](folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
