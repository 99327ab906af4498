"""Makes the files in tests/golden/pytorch/: what torch.save writes, in its forms, and what must be refused.

    python tests/golden/pytorch_files.py          # in a Python with PyTorch; writes beside itself

Every good file holds the network of tests/io/io_test_net.hpp (head, norm, tail) with its numbers counted 1, 2, 3, ... in
Strata's memory order, so that one test can compare all of them.
"""
import argparse
import collections
import datetime
import decimal
import enum
import functools
import os
import pathlib
import pickle
import random
import struct
import types
import zipfile

import numpy
import torch

OUT = pathlib.Path(__file__).parent / "pytorch"


def expected(dtype=torch.float32):
    """The numbers 1, 2, 3, ... in Strata's memory order (O, KH, KW, I), as PyTorch's O, I, KH, KW."""
    state, first = collections.OrderedDict(), 1
    for name, shape in {"head.weight": (3, 2, 3, 3), "head.bias": (3,), "norm.weight": (3,), "norm.running_mean": (3,),
                        "norm.num_batches_tracked": (), "tail.weight": (3, 2, 3, 3), "tail.bias": (3,)}.items():
        count = torch.Size(shape).numel()
        numbers = torch.arange(first, first + count, dtype=torch.float64)
        first += count
        if len(shape) == 4:
            o, i, kh, kw = shape
            numbers = numbers.reshape(o, kh, kw, i).permute(0, 3, 1, 2)
        whole = name.endswith("num_batches_tracked")
        state[name] = numbers.reshape(shape).to(torch.int64 if whole else dtype).contiguous()
    return state


def save(name, what, **options):
    torch.save(what, OUT / name, **options)


OUT.mkdir(exist_ok=True)
legacy = {"_use_new_zipfile_serialization": False}
state = expected()
save("zip.pth", state)
save("legacy.pth", state, **legacy)
save("protocol_5.pth", state, pickle_protocol=5)
save("module_prefix.pth", collections.OrderedDict(("module." + name, tensor) for name, tensor in state.items()))
for name, dtype in {"float64": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16}.items():
    save(f"{name}.pth", expected(dtype))
save("legacy_half.pth", expected(torch.float16), **legacy)

# Weights in channels-last memory, a bias that is a column of a matrix, and two tensors in one storage.
strided = collections.OrderedDict(state)
strided["head.weight"] = state["head.weight"].contiguous(memory_format=torch.channels_last)
strided["tail.weight"] = state["tail.weight"].permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
matrix = torch.full((3, 5), -1.0)
matrix[:, 3] = state["tail.bias"]
strided["tail.bias"] = matrix[:, 3]
together = torch.cat([state["norm.running_mean"], state["head.bias"]])
strided["norm.running_mean"], strided["head.bias"] = together[:3], together[3:]
save("strided.pth", strided)
save("legacy_strided.pth", strided, **legacy)

# Checkpoints: the dict under a key, among other things; "params" and "params_ema" beside each other.
save("checkpoint.pth", {"epoch": 3, "best": torch.tensor(30.5), "loss": [0.5, 0.25], "done": False, "note": None,
                        "size": torch.Size([1, 2]), "big": 2**100, "state_dict": state, "arch": ("dncnn", 17)})
save("ema.pth", {"params": {name: -tensor for name, tensor in state.items()}, "params_ema": state})
save("other_key.pth", {"generator": state, "step": 7})
save("parameters.pth", {name: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor
                        for name, tensor in state.items()})
torch.serialization.set_crc32_options(False)
save("no_checksums.pth", state)
torch.serialization.set_crc32_options(True)



def as_zip64(data):
    """The same archive with its list of entries in the wide form that files above 4 GB have."""
    end = data.rindex(b"PK\5\6")
    count, size, begin = struct.unpack("<HII", data[end + 10:end + 20])
    entries, at = b"", begin
    for _ in range(count):
        head, (name, extra, note) = data[at:at + 46], struct.unpack("<HHH", data[at + 28:at + 34])
        stored, full = struct.unpack("<II", head[20:28])
        place, = struct.unpack("<I", head[42:46])
        wide = struct.pack("<HHQQQ", 1, 24, full, stored, place)
        other = struct.pack("<HH4s", 0x4246, 4, b"pad.")  # a field that is not for us comes first
        entries += (head[:20] + b"\xff" * 8 + struct.pack("<HHH", name, len(other + wide), 0) + head[34:42] + b"\xff" * 4 +
                    data[at + 46:at + 46 + name] + other + wide)
        at += 46 + name + extra + note
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), begin)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, begin + len(entries), 1)
    tail = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, count, count, 0xFFFFFFFF, 0xFFFFFFFF, 4) + b"note"
    return data[:begin] + entries + record + locator + tail


(OUT / "zip64.pth").write_bytes(as_zip64((OUT / "zip.pth").read_bytes()))
with zipfile.ZipFile(OUT / "zip64.pth") as archive:
    assert archive.testzip() is None and archive.comment == b"note"

# Everyday state beside the weights, of which nothing is needed: what schedulers, loggers and people keep in checkpoints.
class Averager:  # a class of the training script's own
    def __init__(self):
        self.sums, self.count = {"loss": 0.5}, 2


class Options(dict):  # such as configuration libraries have
    pass


Point = collections.namedtuple("Point", "x y")


class Mode(enum.Enum):
    TRAIN = 1


def everyday():
    net = torch.nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    net(torch.zeros(1, 1, 1, 1)).sum().backward()
    optimizer.step()
    schedulers = [torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5]), torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)]
    return {
        "state_dict": state, "optimizer": optimizer.state_dict(), "schedulers": [s.state_dict() for s in schedulers],
        "counter": collections.Counter([3, 3, 5]), "set": {1, 2}, "frozen": frozenset([3]), "device": torch.device("cuda:1"),
        "dtype": torch.float32, "size": torch.Size([1, 2]), "layout": torch.strided,
        "args": argparse.Namespace(lr=0.1, milestones=[3, 5]), "simple": types.SimpleNamespace(a=1),
        "array": numpy.arange(3.0), "scalar": numpy.float64(0.5), "integer": numpy.int64(3), "strings": numpy.array(["a", "bc"]),
        "ordered": collections.OrderedDict(a=1), "default": collections.defaultdict(list, a=[1]),
        "default_of": collections.defaultdict(int), "queue": collections.deque([1, 2], 5), "path": pathlib.PurePosixPath("a/b"),
        "partial": functools.partial(int, base=2), "function": torch.nn.functional.relu, "type": torch.nn.Conv2d,
        "object": Averager(), "options": Options(a=Options(b=1)), "point": Point(1, 2), "mode": Mode.TRAIN,
        "date": datetime.datetime(2020, 1, 2), "decimal": decimal.Decimal("0.1"), "complex": 1 + 2j, "bytes": b"ab",
        "array_of_bytes": bytearray(b"ab"), "range": range(3), "slice": slice(1, 2), "dots": ..., "big": 2**100, "none": None,
        "random": random.Random(1).getstate()[:1], "torch_random": torch.Generator().get_state()[:4],
        "numpy_random": ("MT19937", numpy.zeros(3, numpy.uint32), 1, 0, 0.0), "sparse": torch.eye(2).to_sparse(),
        "network": torch.nn.Conv2d(1, 1, 1),
    }


import __main__
for what in (Averager, Options, Point, Mode):
    setattr(__main__, what.__name__, what)
torch.serialization.get_source_lines_and_file = lambda obj: (["class Net: ..."], 1, "net.py")  # not the text of this file
save("everyday.pth", everyday())
save("legacy_everyday.pth", everyday(), pickle_protocol=5, **legacy)

# Tensors that are not read, among those that are; and parameters and tensors with attributes, which are.
others = collections.OrderedDict(state)
others["half_precision.scale"] = torch.ones(2).to(torch.float8_e4m3fn)
others["half_precision.complex"] = torch.zeros(2, dtype=torch.complex64)
others["half_precision.double"] = torch.zeros(2, dtype=torch.complex128)
others["half_precision.unsigned"] = torch.zeros(2, dtype=torch.uint64)
others["five.extents"] = torch.zeros(1, 2, 1, 1, 1)
others["sparse.rows"] = torch.eye(2).to_sparse_csr()
others["sparse.places"] = torch.eye(2).to_sparse()
others["quantised"] = torch.quantize_per_tensor(torch.ones(2), 0.5, 0, torch.qint8)
others["meta"] = torch.zeros(2, device="meta")
others["array"] = numpy.zeros(2)
save("other_tensors.pth", others)
save("legacy_other_tensors.pth", {name: what for name, what in others.items() if name != "meta"}, **legacy)
attributes = collections.OrderedDict()
for name, tensor in state.items():
    attributes[name] = torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor.clone()
    attributes[name].note = "an attribute"
save("attributes.pth", attributes)
numbers = {"mask": torch.tensor([True, False]), "bytes": torch.tensor([0, 255], dtype=torch.uint8),
           "unsigned": torch.tensor([1, 65535], dtype=torch.uint16), "expanded": torch.ones(1).expand(3, 2)}
save("numbers.pth", numbers)

# Weights as torch.compile, DataParallel, weight_norm and spectral_norm keep them.
def module():
    net = torch.nn.Module()
    net.head, net.norm, net.tail = torch.nn.Conv2d(2, 3, 3), torch.nn.Module(), torch.nn.Conv2d(2, 3, 3)
    return net


for name, wrap, remove in (("weight_norm", torch.nn.utils.weight_norm, torch.nn.utils.remove_weight_norm),
                           ("parametrized", torch.nn.utils.parametrizations.weight_norm,
                            lambda layer: torch.nn.utils.parametrize.remove_parametrizations(layer, "weight")),
                           ("spectral_norm", torch.nn.utils.spectral_norm, None)):
    net = module()
    for layer in (net.head, net.tail):
        layer.load_state_dict({part: state[f"{'head' if layer is net.head else 'tail'}.{part}"] for part in ("weight", "bias")})
        wrap(layer)
        if name != "spectral_norm":
            for parameter in layer.parameters():
                parameter.data *= 1.5  # the length and the direction: the weight is 1.5 times, the bias too
    saved = net.state_dict()
    for part in ("weight", "running_mean", "num_batches_tracked"):
        saved[f"norm.{part}"] = state[f"norm.{part}"]
    save(f"{name}.pth", saved)

# What torch.nn.utils.parametrizations writes, beside what the networks then give for an image.
def parametrized(norm):
    torch.manual_seed(1)
    net = torch.nn.Sequential(norm(torch.nn.Conv2d(2, 3, 3, padding=1)), torch.nn.ReLU(),
                              norm(torch.nn.ConvTranspose2d(3, 4, 4, 2, 1, bias=False)), torch.nn.Flatten(),
                              norm(torch.nn.Linear(4 * 6 * 8, 5)))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter += 0.25 * torch.rand_like(parameter)
        for _ in range(2):  # the power method's steps
            net(torch.zeros(1, 2, 3, 4))
    return net.eval()


both, image = {}, torch.cos(torch.arange(24.)).reshape(1, 3, 4, 2).permute(0, 3, 1, 2)
for name, norm in (("spectral", torch.nn.utils.parametrizations.spectral_norm),
                   ("weight", torch.nn.utils.parametrizations.weight_norm)):
    net = parametrized(norm)
    both |= {f"{name}.{part}": tensor for part, tensor in net.state_dict().items()}
    both[f"expected.{name}"] = net(image).detach()
save("parametrizations.pth", both)

# To be refused.
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


save("whole_module.pth", Net())
save("legacy_whole_module.pth", Net(), **legacy)
save("whole_torch_module.pth", torch.nn.ReLU())
with zipfile.ZipFile(OUT / "torchscript.pth", "w", zipfile.ZIP_STORED) as archive:  # the entries of torch.jit.save
    for name in ("data.pkl", "constants.pkl", "version"):
        archive.writestr(f"torchscript/{name}", pickle.dumps({}, protocol=2))
    archive.writestr("torchscript/code/net.py", "compressed " * 20, zipfile.ZIP_DEFLATED)
save("five_extents.pth", {"conv3d.weight": torch.zeros(1, 1, 1, 1, 1)})
save("complex.pth", {"weight": torch.zeros(1, dtype=torch.complex64)})
save("no_tensors.pth", {"epoch": 3, "names": ["a", "b"]})


class Malicious:
    def __reduce__(self):
        return os.system, ("touch strata_was_here",)


save("malicious.pth", {"state_dict": state, "extra": Malicious()})
save("legacy_malicious.pth", {"state_dict": state, "extra": Malicious()}, **legacy)
with zipfile.ZipFile(OUT / "compressed.pth", "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("compressed/data.pkl", pickle.dumps({"a": "a" * 100}, protocol=2))
for file in sorted(OUT.iterdir()):
    print(file.name, file.stat().st_size)
