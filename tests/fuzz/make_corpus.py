"""Writes the corpora of the fuzzers that no program of Strata writes; fuzz_make_corpus writes the others.

    python3 tests/fuzz/make_corpus.py tests/fuzz/corpus

The pickles are those of tests/golden/pytorch/. The fuzzers of pictures and of torch.save's files begin with
tests/golden/images/ and tests/golden/pytorch/ themselves.
"""
import gzip
import pathlib
import struct
import sys
import zipfile
import zlib

corpus, golden = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent.parent / "golden"


def write(name, data):
    (corpus / name).parent.mkdir(parents=True, exist_ok=True)
    (corpus / name).write_bytes(data)


def pickle_of(path):
    """The bytes of the pickles in a file; read by hand, since two of the files have no or wrong checksums."""
    data = path.read_bytes()
    if not data.startswith(b"PK"):
        return data[:1500]
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl"))
    name, extra = struct.unpack("<HH", data[entry.header_offset + 26:entry.header_offset + 30])
    begin = entry.header_offset + 30 + name + extra
    return data[begin:begin + entry.file_size]


for name in ("zip", "legacy", "protocol_5", "strided", "checkpoint", "parameters", "half", "complex", "whole_module", "malicious", "everyday", "legacy_everyday",
             "other_tensors", "attributes"):
    write(f"pickle/{name}", pickle_of(golden / "pytorch" / f"{name}.pth"))
small = b'{"a":{"dtype":"%s","shape":[2],"data_offsets":[0,%d]}}'
for dtype, width in {"F16": 2, "BF16": 2, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}.items():
    header = small % (dtype.encode(), 2 * width)
    write(f"safetensors/{dtype}", struct.pack("<Q", len(header)) + header + bytes(2 * width))
for number, header in enumerate([
        b'{"__metadata__":null,"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}',
        b'{"a":{"strides":[1,{"b":[-1.5e3,true,null]}],"dtype":"F4","shape":[4],"data_offsets":[0,2]}}',
        b'{"a":{"dtype":"U16","shape":[1,1,1,1,1],"data_offsets":[0,2]}}']):
    write(f"safetensors/other{number}", struct.pack("<Q", len(header)) + header + bytes(2))
for number, words in enumerate([
        "--train-dir dead-leaves --steps 100 --batch-size 4 --patch-size 32 --lr 1e-3 --clip 0.5 --seed 18446744073709551615",
        "--minutes 2.5 --threads 2 --num-workers 0 --checkpoint-dir out/a --resume", "--steps=5 --report-interval=1",
        "denoise photo.png other.jpg -o out --sigma 12.5 --max-memory 1.5G --overwrite --compare both --isa avx2 --threads 3",
        "--help", "--lr -1", "--patch-size 15", "--seed -1", "--steps 0x10 --images 1e3", "-- --steps", "--unknown 1 word"]):
    write(f"command_line/{number}", words.replace(" ", "\n").encode())
images = struct.pack(">IIII", 0x803, 3, 4, 5) + bytes(range(60))
labels = struct.pack(">II", 0x801, 5) + bytes([5, 0, 4, 1, 9])
for name, data in {"images": images, "labels": labels, "matrix": struct.pack(">III", 0x802, 2, 3) + bytes(6)}.items():
    write(f"dataset/{name}", data)
    write(f"dataset/{name}.gz", gzip.compress(data, mtime=0))
packed = gzip.compress(labels, mtime=0)
header = packed[:3] + b"\x1e" + packed[4:10] + b"\x02\x00abname\x00comment\x00"  # all of the optional fields
write("dataset/fields.gz", header + struct.pack("<H", zlib.crc32(header) & 0xFFFF) + packed[10:])
write("dataset/cifar", bytes([3]) + bytes([255]) * 1024 + bytes(2048))


def lmdb_page(number, flags, nodes):
    """A page of 512 bytes of an LMDB database: its header, the places of its nodes, and these from the end on."""
    page, at = bytearray(512), 512
    struct.pack_into("<QHHHH", page, 0, number, 0, flags, 16 + 2 * len(nodes), 0)
    for i, node in enumerate(nodes):
        at -= len(node) + len(node) % 2
        page[at:at + len(node)] = node
        struct.pack_into("<H", page, 16 + 2 * i, at)
    struct.pack_into("<H", page, 14, at)
    return bytes(page)


def lmdb_state(number, transaction, depth, entries, root, last):
    """A meta page: two descriptions of 48 bytes, of the free pages and of the tree."""
    free = struct.pack("<IHH5Q", 512, 0, 0, 0, 0, 0, 0, 2**64 - 1)
    tree = struct.pack("<IHH5Q", 0, 0, depth, 1, 2, 2, entries, root)
    body = struct.pack("<IIQQ", 0xBEEFC0DE, 1, 0, 1 << 20) + free + tree + struct.pack("<QQ", last, transaction)
    return (struct.pack("<QHHI", number, 0, 8, 0) + body).ljust(512, b"\0")


def lmdb_leaf_node(key, value, page=None):
    size, flags = (len(value), 0) if page is None else (value, 1)
    return struct.pack("<IHH", size, flags, len(key)) + key + (value if page is None else struct.pack("<Q", page))


def lmdb_branch_node(key, page):
    return struct.pack("<IHH", page, 0, len(key)) + key


write("lmdb/empty", b"\0" + lmdb_state(0, 0, 0, 0, 2**64 - 1, 1) + lmdb_state(1, 0, 0, 0, 2**64 - 1, 1))
write("lmdb/tree", b"\0" + lmdb_state(0, 0, 0, 0, 2**64 - 1, 1) + lmdb_state(1, 1, 2, 4, 4, 6) +
      lmdb_page(2, 2, [lmdb_leaf_node(b"a", b"first"), lmdb_leaf_node(b"b", 600, 5)]) +
      lmdb_page(3, 2, [lmdb_leaf_node(b"cc", b""), lmdb_leaf_node(b"d", b"last")]) +
      lmdb_page(4, 1, [lmdb_branch_node(b"", 2), lmdb_branch_node(b"cc", 3)]) +
      struct.pack("<QHHI", 5, 0, 4, 2) + bytes(1008))
write("lmdb/line", b"\0" + b"0001_s001.png (480,480,3) 1")
