"""Writes the graphs of the multilingual encoder, without weights. Needs the package `onnx`.

    python -m rule_server.retrieval.encoders.multilingual.graph

The weights are put in when a graph is opened. `pieces` computes each piece's features from the embedded
pieces of any texts, `pieces_int8` the same with rounded weights, and `sentence` a text's vector from the sum
of its pieces' features.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rule_server.retrieval.encoders.int8 import CONSTANTS, Int8Products
from rule_server.retrieval.encoders.multilingual.encoder import (
    DIMENSION,
    GRAPHS,
    ORDERS,
    graph_weights,
    load_weights,
)
from rule_server.retrieval.encoders.onnx import weightless
from rule_server.rulebook.files import write_atomic

WIDTH = 256
"""Features of each branch."""
SCALES = ((18 / 127, 128), (0.2, 80))
"""Step and offset of rounded values before both layers. Their ranges differ little between texts: the first
values are normalised, and hardly any of the second is below -16 or above 35."""
OPSET, IR_VERSION = 18, 9


class _Graph:
    """Collects the nodes of a graph."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns the name of its output."""
        from onnx import helper

        output = attributes.pop("output", f"value{len(self.nodes)}")
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return str(output)


def _pieces_graph(epsilon: float, *, int8: bool = False) -> tuple[list[Any], dict[str, Any]]:
    """Returns the nodes of `pieces`, and its constants other than weights."""
    import numpy as np
    from onnx import helper

    graph = _Graph()
    products = Int8Products(graph.add, OPSET)
    constants: dict[str, Any] = dict(CONSTANTS) if int8 else {"beyond": np.zeros((1, WIDTH), np.float32)}
    if int8:
        rounded = products.round_rows("embedded")
        projected = products.multiply(rounded, "project", "project_scales", "project_bias")
    else:
        projected = graph.add("Add", graph.add("MatMul", "embedded", "project"), "project_bias")
    normal = {"axis": -1, "epsilon": epsilon}
    projected = graph.add("LayerNormalization", projected, "project_gain", "project_shift", **normal)
    branches = [f"branch{at}" for at in range(len(ORDERS))]
    graph.nodes.append(helper.make_node("Split", [projected], branches, axis=1, num_outputs=len(ORDERS)))
    parts = ["embedded"]
    for branch, (length, _) in enumerate(ORDERS):
        constants[f"shape{branch}"] = np.array([-1, length * WIDTH], np.int64)
        values = branches[branch]
        for layer, (step, zero) in enumerate(SCALES):
            weights = f"conv{branch}{layer}"
            if int8:
                constants[f"step{layer}"] = np.array(step, np.float32)
                constants[f"zero{layer}"] = np.array(zero, np.uint8)
                constants[f"beyond{layer}"] = np.full((1, WIDTH), zero, np.uint8)
                rounded = products.round_all(values, f"step{layer}", f"zero{layer}")
                rounded = rounded._replace(
                    values=_add_ngrams(graph, rounded.values, branch, f"beyond{layer}")
                )
                product = products.multiply(rounded, weights, f"{weights}_scales", f"{weights}_bias")
            else:
                rows = _add_ngrams(graph, values, branch, "beyond")
                product = graph.add("Gemm", rows, weights, f"{weights}_bias")
            values = graph.add("Add", graph.add("Relu", product), values)
        parts.append(values)
    features = graph.add("Concat", *parts, axis=1)
    graph.add("LayerNormalization", features, "gain", "shift", output="features", **normal)
    return graph.nodes, constants


def _add_ngrams(graph: _Graph, values: str, branch: int, beyond: str) -> str:
    """Adds rows of n-grams: the values of each piece and its neighbours, side by side."""
    rows = graph.add("Gather", graph.add("Concat", values, beyond, axis=0), f"rows{branch}", axis=0)
    return graph.add("Reshape", rows, f"shape{branch}")


def _sentence_graph(epsilon: float) -> tuple[list[Any], dict[str, Any]]:
    """Returns the nodes of `sentence`, and its constants other than weights."""
    import numpy as np

    graph = _Graph()
    mixed = graph.add("Add", graph.add("MatMul", "sum", "mix"), graph.add("Mul", "count", "mix_bias"))
    mean = graph.add("Div", mixed, graph.add("Sqrt", "count"))
    first = graph.add("Relu", graph.add("MatMul", mean, "d0"))
    second = graph.add("Add", graph.add("MatMul", mean, "p1"), graph.add("MatMul", first, "d1"))
    second = graph.add("Relu", second)
    third = graph.add("Relu", graph.add("MatMul", second, "d2"))
    last = graph.add("Add", graph.add("MatMul", second, "p3"), graph.add("MatMul", third, "d3"))
    last = graph.add("Tanh", last)
    square = graph.add("ReduceSum", graph.add("Mul", last, last), "axis", keepdims=1)
    graph.add("Div", last, graph.add("Sqrt", graph.add("Max", square, "least")), output="vectors")
    return graph.nodes, {"axis": np.array([1], np.int64), "least": np.array([epsilon], np.float32)}


def graph_bytes(name: str, weights: Any) -> bytes:
    """Returns the content of a graph's file, which names the weights without containing them."""
    from onnx import TensorProto, helper, numpy_helper

    epsilon, int8 = float(weights.eps), name == "pieces_int8"
    nodes, constants = _sentence_graph(epsilon) if name == "sentence" else _pieces_graph(epsilon, int8=int8)
    real, whole = TensorProto.FLOAT, TensorProto.INT64
    if name != "sentence":
        inputs = [helper.make_tensor_value_info("embedded", real, ["pieces", DIMENSION])]
        for branch, (length, _) in enumerate(ORDERS):
            inputs.append(helper.make_tensor_value_info(f"rows{branch}", whole, ["pieces", length]))
        output = helper.make_tensor_value_info("features", real, ["pieces", None])
    else:
        inputs = [
            helper.make_tensor_value_info("sum", real, ["texts", len(weights.cnn_W)]),
            helper.make_tensor_value_info("count", real, ["texts", 1]),
        ]
        output = helper.make_tensor_value_info("vectors", real, ["texts", DIMENSION])
    used = {name for node in nodes for name in node.input}
    initial = [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used]
    initial += [weightless(key, value) for key, value in graph_weights(weights, name).items()]
    graph = helper.make_graph(nodes, name, inputs, [output], initial)
    opsets = [helper.make_opsetid("", OPSET)] + [helper.make_opsetid("com.microsoft", 1)] * int8
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ascl")
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Writes both graphs beside this module."""
    weights = load_weights()
    for name in GRAPHS:
        write_atomic(Path(__file__).with_name(f"{name}.onnx"), graph_bytes(name, weights))


if __name__ == "__main__":
    main()
