"""Matrix products with int8 weights, as nodes of an ONNX graph. Opening such a graph does not need `onnx`.

Values are rounded to 8 bits. Where a few are much larger than the others, each row has its own scale, which
needs several more nodes; otherwise all rows share a scale that was measured on sample texts. Neither depends
on the other rows of a batch, as it would with ONNX Runtime's dynamic quantisation. Each column of the weights
has its own scale too. Integers are summed exactly, so a result is the same, bit for bit, alone and in any
batch.

A few large features would leave little precision to the others of their row. `quantise_graph` therefore
divides each feature of normalised values, before rounding, by a factor that moves a part of its range into
the weights (SmoothQuant, arXiv 2211.10438, equation 4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

LARGEST, LARGEST_WEIGHT = 127, 63
"""Largest rounded value, and largest rounded weight. The range is symmetric: zero stays zero. With larger
weights, the sum of two products could exceed 16 bits, and kernels for AVX2 would cut it off."""
ZERO, LOW_ZERO, LOW_LARGEST = 128, 32, 223
"""Offset of rounded values, as ONNX Runtime's fastest kernels take unsigned values and signed weights. The
low one gives nearly twice the precision to values that are hardly ever negative, as those after Gelu."""
CONSTANTS: dict[str, NDArray[Any]] = {
    "int8_unit": np.array(1, np.float32),
    "int8_zero": np.array(ZERO, np.uint8),
    "int8_largest": np.array(LARGEST, np.float32),
    "int8_step": np.array(1 / LARGEST, np.float32),
    "int8_least": np.array(1e-12, np.float32),
    "int8_axis": np.array([-1], np.int64),
    "int8_low_zero": np.array(LOW_ZERO, np.uint8),
    "int8_low_largest": np.array(LOW_LARGEST, np.float32),
    "int8_low_step": np.array(1 / LOW_LARGEST, np.float32),
}
"""Constants that the nodes need."""
FLOAT = 1
"""ONNX's number for float32."""
SMOOTHING = 0.55
"""Share of a feature's range that is moved into the weights. Values from 0.4 to 0.7 are equally good."""
SHARED_RATIO = 5
"""Rows share a scale if the largest feature has at most this many times the range of the median one."""
OPSET_WITH_AXIS_INPUT = 18
"""Version of ONNX from which ReduceMax takes its axis as an input."""


def quantise(matrix: Floats, largest: int = LARGEST_WEIGHT) -> tuple[NDArray[np.int8], Floats]:
    """Rounds weights (inputs, outputs). Returns them in int8, and the scale of each output, (outputs,)."""
    scales = np.maximum(np.abs(matrix).max(axis=0), 1e-12).astype(np.float32) / np.float32(largest)
    return np.round(matrix / scales).astype(np.int8), scales


class Rounded(NamedTuple):
    """Names of rounded values, their offset and their scale; each row may have its own scale in addition."""

    values: str
    zero: str
    step: str
    row_scales: str | None = None


class Int8Products:
    """Adds nodes that multiply rows of values with int8 weights.

    `add` adds a node: its operator, the names of its inputs, and its attributes. It returns the name of the
    output.
    """

    def __init__(self, add: Callable[..., str], opset: int) -> None:
        self._add, self._opset = add, opset

    def multiply(self, rounded: Rounded, weights: str, scales: str, bias: str = "", **attributes: Any) -> str:
        """Adds values (..., inputs) times weights (inputs, outputs), plus a bias. Attributes go to the last
        node."""
        inputs = [rounded.values, weights, rounded.step, scales, rounded.zero]
        product, domain = "MatMulIntegerToFloat", "com.microsoft"
        if rounded.row_scales is None:
            inputs += ["", bias] if bias else []
            return self._add(product, *inputs, domain=domain, **attributes)
        inputs = [self._add(product, *inputs, domain=domain), rounded.row_scales]
        if bias:
            inputs = [self._add("Mul", *inputs), bias]
        return self._add("Add" if bias else "Mul", *inputs, **attributes)

    def round_rows(self, values: str, least: str | None = None) -> Rounded:
        """Rounds values with a scale for each row.

        `least` is given for values that are hardly ever negative, whose largest value has the largest amount.
        It names the smallest value that is taken for the largest of a row.
        """
        add, low = self._add, "" if least is None else "low_"
        amount = add("Abs", values) if least is None else values
        if self._opset >= OPSET_WITH_AXIS_INPUT:
            largest = add("ReduceMax", amount, "int8_axis", keepdims=1)
        else:
            largest = add("ReduceMax", amount, axes=[-1], keepdims=1)
        largest = add("Clip", largest, least or "int8_least")
        scaled = add("Mul", values, add("Div", f"int8_{low}largest", largest))
        rounded = add("QuantizeLinear", scaled, "int8_unit", f"int8_{low}zero")
        return Rounded(rounded, f"int8_{low}zero", "int8_unit", add("Mul", largest, f"int8_{low}step"))

    def round_all(self, values: str, step: str, zero: str) -> Rounded:
        """Rounds values with one scale for all rows, and an offset."""
        return Rounded(self._add("QuantizeLinear", values, step, zero), zero, step)

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

    `ranges` are the smallest and the largest value of each feature of the `product_inputs`, (2, inputs).
    """
    from onnx import helper

    _Quantiser(model, ranges).replace()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


class _Quantiser:
    """Collects the nodes and constants of a graph with int8 weights."""

    def __init__(self, model: Any, ranges: Mapping[str, Floats]) -> None:
        self._graph, self._ranges = model.graph, ranges
        self._constants = {one.name: one for one in model.graph.initializer}
        self._inputs = product_inputs(model)
        self._normalised = {
            node.output[0] for node in model.graph.node if node.op_type == "LayerNormalization"
        }
        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._nodes: list[Any] = []
        self._new = dict(CONSTANTS)
        self._rounded: dict[str, tuple[Rounded, Floats | None]] = {}
        opset = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
        self._products = Int8Products(self._add, opset)

    def _add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        output = output or f"int8_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def replace(self) -> None:
        """Replaces the nodes and constants of the graph."""
        from onnx import numpy_helper

        done: set[str] = set()
        for node in self._graph.node:
            at = {"MatMul": 1, "Gather": 0}.get(node.op_type)
            weights = None if at is None else self._constants.get(node.input[at])
            if weights is not None and _is_matrix(weights):
                matrix = numpy_helper.to_array(weights)
                if node.op_type == "MatMul":
                    done.add(self._multiply(node, f"int8_{weights.name}", matrix))
                else:
                    self._embed(node, f"int8_{weights.name}", matrix)
            elif node.output[0] not in done:
                self._nodes.append(node)
        graph, used = self._graph, {name for node in self._nodes for name in node.input}
        kept = [one for one in graph.initializer if one.name in used]
        kept += [numpy_helper.from_array(value, name) for name, value in self._new.items() if name in used]
        for field, entries in ((graph.node, self._nodes), (graph.initializer, kept)):
            del field[:]
            field.extend(entries)

    def _embed(self, node: Any, name: str, matrix: Floats) -> None:
        table, scales = quantise(matrix.T, LARGEST)
        self._new[name], self._new[f"{name}_scales"] = np.ascontiguousarray(table.T), scales[:, None]
        self._products.embed(name, f"{name}_scales", node.input[1], output=node.output[0])

    def _multiply(self, node: Any, name: str, matrix: Floats) -> str:
        """Adds a product, with the bias that the next node adds, if any. Returns the name of the result."""
        values = node.input[0]
        if values not in self._rounded:
            self._rounded[values] = self._round(values)
        rounded, factors = self._rounded[values]
        matrix = matrix if factors is None else matrix * factors[:, None]
        self._new[name], self._new[f"{name}_scales"] = quantise(matrix)
        output, bias = str(node.output[0]), ""
        readers = self._readers.get(output, [])
        if len(readers) == 1 and readers[0].op_type == "Add":
            (other,) = set(readers[0].input) - {output} or {""}
            if other in self._constants and list(self._constants[other].dims) == [matrix.shape[1]]:
                output, bias = str(readers[0].output[0]), other
        self._products.multiply(rounded, name, f"{name}_scales", bias, output=output)
        return output

    def _round(self, values: str) -> tuple[Rounded, Floats | None]:
        """Rounds values. Returns them, and the factors by which they are divided before.

        Only normalised values are divided. Others have fewer large features, or a few that are so large that
        the weights would lose more precision than the values gain.
        """
        from onnx import numpy_helper

        lowest, highest = self._ranges[values]
        largest, divided, factors = np.maximum(-lowest, highest), values, None
        if values in self._normalised:
            matrices = [numpy_helper.to_array(one) for one in self._inputs[values]]
            factors = smoothing_factors(largest, matrices)
            largest /= factors
            self._new[f"{values}_smoothing"] = 1 / factors
            divided = self._add("Mul", values, f"{values}_smoothing")
        least = max(-lowest.min() * LOW_LARGEST / LOW_ZERO, 0)
        low = factors is None and least <= highest.max()
        if largest.max() <= SHARED_RATIO * np.median(largest):
            steps, zero = (LOW_LARGEST, "int8_low_zero") if low else (LARGEST, "int8_zero")
            self._new[f"{values}_step"] = np.array(max(largest.max(), 1e-12) / steps, np.float32)
            return self._products.round_all(divided, f"{values}_step", zero), factors
        if not low:
            return self._products.round_rows(divided), factors
        self._new[f"{values}_least"] = np.array(max(least, 1e-12), np.float32)
        return self._products.round_rows(divided, f"{values}_least"), factors
