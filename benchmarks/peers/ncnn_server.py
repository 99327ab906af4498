"""ncnn's side: inference in float32 (no 16-bit storage), threads from OMP_NUM_THREADS."""
import os
import pathlib
import tempfile

import ncnn
import numpy

from networks import NETWORKS, random_weights
from server import serve


def write_model(network, folder):
    """The network in ncnn's own files: a .param of one line per layer and a .bin of the weights."""
    residual = network.residual != "f(x)"
    layers = ["Input in 0 1 x"]
    at, blobs, binary = "x", 1, b""
    if residual:
        layers.append("Split split 1 2 x skip body")
        at, blobs = "body", 3
    weights = random_weights(network)
    for i, (kind, *rest) in enumerate(network.layers):
        if kind == "relu":
            continue
        channels, out, kernel, _ = rest
        weight, bias = next(weights)
        # 9=1: with ReLU, as ncnn's own optimiser of models (ncnnoptimize) would have it.
        relu = " 9=1" if i + 1 < len(network.layers) else ""
        layers.append(f"Convolution l{i} 1 1 {at} v{i} 0={out} 1={kernel} 4={kernel // 2} 5=1 6={weight.size}{relu}")
        binary += b"\0\0\0\0" + weight.tobytes() + bias.tobytes()  # tag 0: float32
        at, blobs = f"v{i}", blobs + 1
    if residual:
        layers.append(f"BinaryOp out 2 1 skip {at} y 0={1 if network.residual == 'x - f(x)' else 0}")
        at, blobs = "y", blobs + 1
    param, weights_file = pathlib.Path(folder, "net.param"), pathlib.Path(folder, "net.bin")
    param.write_text(f"7767517\n{len(layers)} {blobs}\n" + "\n".join(layers) + "\n")
    weights_file.write_bytes(binary)
    return str(param), str(weights_file), at


def make(work, name, n, h, w, variant):
    assert work == "infer" and n == 1
    network = NETWORKS[name].folded()
    net = ncnn.Net()
    net.opt.num_threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    with tempfile.TemporaryDirectory() as folder:
        param, weights, output = write_model(network, folder)
        if net.load_param(param) != 0 or net.load_model(weights) != 0:
            raise RuntimeError("ncnn cannot load the model")
    x = ncnn.Mat(numpy.random.default_rng(0).random((network.channels, h, w), dtype=numpy.float32)).clone()

    def infer():
        extractor = net.create_extractor()
        extractor.input("x", x)
        status, y = extractor.extract(output)
        if status != 0:
            raise RuntimeError("ncnn failed")
    return infer


serve(make)
