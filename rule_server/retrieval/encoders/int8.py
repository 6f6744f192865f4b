"""Matrix products with int8 weights, as nodes of an ONNX graph. Opening such a graph does not need `onnx`.

Each row of values is rounded to 8 bits with its own scale, so a result does not depend on the other
rows of a batch, as it would with ONNX Runtime's dynamic quantisation. Each column of the weights has its own
scale too. Integers are summed exactly, so a result is the same, bit for bit, alone and in any batch.

A few large features would leave little precision to the others of their row. `quantise_graph` therefore
divides each feature, before rounding, by a factor that moves a part of its range into the weights
(SmoothQuant, arXiv 2211.10438, equation 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LARGEST = 127
"""Largest rounded value. The range is symmetric: zero stays zero."""
CONSTANTS: dict[str, NDArray[Any]] = {
    "int8_unit": np.array(1, np.float32),
    "int8_zero": np.array(128, np.uint8),
    "int8_largest": np.array(LARGEST, np.float32),
    "int8_step": np.array(1 / LARGEST, np.float32),
    "int8_least": np.array(1e-12, np.float32),
    "int8_axis": np.array([-1], np.int64),
}
"""Constants that the nodes need: the offset of rounded values is 128, as ONNX Runtime's fastest kernels take
unsigned values and signed weights."""
FLOAT = 1
"""ONNX's number for float32."""
SMOOTHING = 0.6
"""Share of a feature's range that is moved into the weights. Values from 0.5 to 0.7 are equally good."""
OPSET_WITH_AXIS_INPUT = 18
"""Version of ONNX from which ReduceMax takes its axis as an input."""


def quantise(matrix: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Rounds weights (inputs, outputs). Returns them in int8, and the scale of each output, (outputs,)."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / np.float32(LARGEST)
    return np.round(matrix / scales).astype(np.int8), scales


class Int8Products:
    """Adds nodes that multiply rows of values with int8 weights.

    `add` adds a node: its operator, the names of its inputs, and its attributes. It returns the name of the
    output. Values that are multiplied several times are rounded once.
    """

    def __init__(self, add: Callable[..., str], opset: int) -> None:
        self._add, self._opset = add, opset
        self._rounded: dict[str, tuple[str, str]] = {}

    def add(self, values: str, weights: str, scales: str, **attributes: Any) -> str:
        """Adds values (..., inputs) times weights (inputs, outputs). Attributes go to the last node."""
        if values not in self._rounded:
            self._rounded[values] = self._round(values)
        rounded, row_scales = self._rounded[values]
        inputs = (rounded, weights, "int8_unit", scales, "int8_zero")
        product = self._add("MatMulIntegerToFloat", *inputs, domain="com.microsoft")
        return self._add("Mul", product, row_scales, **attributes)

    def _round(self, values: str) -> tuple[str, str]:
        """Adds the nodes that round values. Returns the rounded values and the scale of each row."""
        add = self._add
        if self._opset >= OPSET_WITH_AXIS_INPUT:
            largest = add("ReduceMax", add("Abs", values), "int8_axis", keepdims=1)
        else:
            largest = add("ReduceMax", add("Abs", values), axes=[-1], keepdims=1)
        largest = add("Clip", largest, "int8_least")
        scaled = add("Mul", values, add("Div", "int8_largest", largest))
        return add("QuantizeLinear", scaled, "int8_unit", "int8_zero"), add("Mul", largest, "int8_step")

    def embed(self, weights: str, scales: str, rows: str, **attributes: Any) -> str:
        """Adds a look-up of rows of a table of embeddings. `scales` has one value per row, (rows, 1)."""
        table = self._add("Cast", self._add("Gather", weights, rows), to=FLOAT)
        return self._add("Mul", table, self._add("Gather", scales, rows), **attributes)


def product_inputs(model: Any) -> dict[str, list[Any]]:
    """Returns the values of a graph that are multiplied by constant weights, with these weights."""
    constants = {one.name: one for one in model.graph.initializer}
    found: dict[str, list[Any]] = {}
    for node in model.graph.node:
        weights = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is not None and _is_matrix(weights):
            found.setdefault(node.input[0], []).append(weights)
    return found


def _is_matrix(constant: Any) -> bool:
    return len(constant.dims) == 2 and constant.data_type == FLOAT


def smoothing_factors(largest: Floats, matrices: Sequence[Floats]) -> Floats:
    """Returns the factor by which each feature is divided, (inputs,).

    Args:
        largest: the largest absolute value of each feature in sample texts, (inputs,).
        matrices: the weights (inputs, outputs) that it is multiplied by.
    """
    weights = np.maximum(np.max([np.abs(matrix).max(axis=1) for matrix in matrices], axis=0), 1e-6)
    factors = np.maximum(largest, 1e-6) ** SMOOTHING / weights ** (1 - SMOOTHING)
    return np.asarray(factors / np.exp(np.log(factors).mean()), np.float32)


def quantise_graph(model: Any, ranges: Mapping[str, Floats]) -> None:
    """Replaces a graph's embeddings and the weights of its products by int8 ones (`onnx.ModelProto`).

    `ranges` are the largest absolute values of each of the `product_inputs`, by feature, (inputs,).
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    nodes: list[Any] = []

    def add(operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"int8_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    products = Int8Products(add, opset)
    new = dict(CONSTANTS)
    factors = {
        name: smoothing_factors(ranges[name], [numpy_helper.to_array(one) for one in weights])
        for name, weights in product_inputs(model).items()
    }
    smooth: dict[str, str] = {}
    for node in graph.node:
        at = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        weights = None if at is None else constants.get(node.input[at])
        if weights is None or not _is_matrix(weights):
            nodes.append(node)
            continue
        name, matrix, output = f"int8_{weights.name}", numpy_helper.to_array(weights), node.output[0]
        if node.op_type == "MatMul":
            values = node.input[0]
            if values not in smooth:
                new[f"{values}_smoothing"] = 1 / factors[values]
                smooth[values] = add("Mul", values, f"{values}_smoothing")
            new[name], new[f"{name}_scales"] = quantise(matrix * factors[values][:, None])
            products.add(smooth[values], name, f"{name}_scales", output=output)
        else:
            table, scales = quantise(matrix.T)
            new[name], new[f"{name}_scales"] = np.ascontiguousarray(table.T), scales[:, None]
            products.embed(name, f"{name}_scales", node.input[1], output=output)
    del graph.node[:]
    graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [one for one in graph.initializer if one.name in used]
    kept += [numpy_helper.from_array(value, name) for name, value in new.items() if name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
