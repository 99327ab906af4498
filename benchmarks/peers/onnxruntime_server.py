"""onnxruntime's side: inference, its default optimisations on its CPU provider, threads from OMP_NUM_THREADS."""
import os

import numpy
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from networks import NETWORKS, random_weights
from server import serve


def onnx_model(network):
    nodes, initializers, at = [], [], "x"
    weights = random_weights(network)
    for i, (kind, *rest) in enumerate(network.layers):
        to = f"v{i}"
        if kind == "conv":
            weight, bias = next(weights)
            initializers += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(bias, f"b{i}")]
            pad = rest[2] // 2
            nodes.append(helper.make_node("Conv", [at, f"w{i}", f"b{i}"], [to], pads=[pad] * 4))
        else:
            nodes.append(helper.make_node("Relu", [at], [to]))
        at = to
    if network.residual != "f(x)":
        nodes.append(helper.make_node("Sub" if network.residual == "x - f(x)" else "Add", ["x", at], ["y"]))
        at = "y"
    shape = [None, network.channels, None, None]
    value = lambda name: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "network", [value("x")], [value(at)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def make(work, name, n, h, w, variant):
    assert work == "infer"
    network = NETWORKS[name].folded()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
    session = onnxruntime.InferenceSession(onnx_model(network).SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    x = numpy.random.default_rng(0).random((n, network.channels, h, w), dtype=numpy.float32)
    return lambda: session.run(None, {"x": x})


serve(make)
