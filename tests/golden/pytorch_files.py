"""Makes the files in tests/golden/pytorch/: what torch.save writes, in its forms, and what must be refused.

    python tests/golden/pytorch_files.py          # in a Python with PyTorch; writes beside itself

Every good file holds the network of tests/io/io_test_net.hpp (head, norm, tail) with its numbers counted 1, 2, 3, ... in
Strata's memory order, so that one test can compare all of them.
"""
import collections
import os
import pathlib
import pickle
import struct
import zipfile

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

# To be refused.
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))


torch.serialization.get_source_lines_and_file = lambda obj: (["class Net: ..."], 1, "net.py")  # not the text of this file
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
