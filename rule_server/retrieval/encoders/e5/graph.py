"""Writes the graph of multilingual-e5-small, without weights. Needs the package `onnx`.

    python -m rule_server.retrieval.encoders.e5.graph

The weights are put in when the graph is opened. It computes the states of all pieces of texts that have
equally many, so it needs no padding and no mask.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rule_server.retrieval.encoders.e5.encoder import DIMENSION, GRAPH_FILE, graph_weights
from rule_server.retrieval.encoders.e5.weights import E5File, open_file
from rule_server.retrieval.encoders.onnx import weightless
from rule_server.rulebook.files import write_atomic

OPSET, IR_VERSION = 18, 9
CONTRIB = "com.microsoft"


def _nodes(file: E5File) -> tuple[list[Any], dict[str, Any]]:
    """Returns the nodes, and the constants other than weights."""
    from onnx import helper

    nodes: list[Any] = []
    norm = {"axis": -1, "epsilon": file.epsilon}
    skip = {"epsilon": file.epsilon, "domain": CONTRIB}

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        output = attributes.pop("output", f"value{len(nodes)}")
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return str(output)

    states = add("LayerNormalization", "embedded", "gain", "shift", **norm)
    for layer in range(file.layers):
        at = f"layer{layer}."
        # Queries, keys and values of all heads: (texts, 3 * heads, pieces, width of a head).
        joint = add("Add", add("MatMul", states, f"{at}joint"), f"{at}joint_bias")
        joint = add("Transpose", add("Reshape", joint, "heads"), perm=[0, 2, 1, 3])
        queries, keys, values = f"{at}queries", f"{at}keys", f"{at}values"
        nodes.append(helper.make_node("Split", [joint], [queries, keys, values], axis=1, num_outputs=3))
        chances = add("Softmax", add("MatMul", queries, add("Transpose", keys, perm=[0, 1, 3, 2])), axis=-1)
        mixed = add("Transpose", add("MatMul", chances, values), perm=[0, 2, 1, 3])
        mixed = add("MatMul", add("Reshape", mixed, "joined"), f"{at}mix")
        inputs = (mixed, states, f"{at}mix_gain", f"{at}mix_shift", f"{at}mix_bias")
        states = add("SkipLayerNormalization", *inputs, **skip)
        inner = add("BiasGelu", add("MatMul", states, f"{at}inner"), f"{at}inner_bias", domain=CONTRIB)
        outer = add("MatMul", inner, f"{at}outer")
        inputs = (outer, states, f"{at}outer_gain", f"{at}outer_shift", f"{at}outer_bias")
        output = f"{at}states" if layer < file.layers - 1 else "states"
        states = add("SkipLayerNormalization", *inputs, **skip, output=output)
    shape = [0, 0, 3 * file.heads, file.width // file.heads]
    constants = {"heads": shape, "joined": [0, 0, file.width]}
    return nodes, {name: np.array(value, np.int64) for name, value in constants.items()}


def graph_bytes(file: E5File) -> bytes:
    """Returns the content of the graph's file, which names the weights without containing them."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants = _nodes(file)
    real = TensorProto.FLOAT
    initial = [numpy_helper.from_array(value, key) for key, value in constants.items()]
    initial += [weightless(key, value) for key, value in graph_weights(file).items()]
    inputs = [helper.make_tensor_value_info("embedded", real, ["texts", "pieces", DIMENSION])]
    outputs = [helper.make_tensor_value_info("states", real, ["texts", "pieces", DIMENSION])]
    graph = helper.make_graph(nodes, "e5", inputs, outputs, initial)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ascl")
    return bytes(model.SerializeToString(deterministic=True))


def main() -> None:
    """Writes the graph beside this module."""
    write_atomic(Path(__file__).with_name(GRAPH_FILE), graph_bytes(open_file()))


if __name__ == "__main__":
    main()
