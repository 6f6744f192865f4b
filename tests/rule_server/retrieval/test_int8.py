"""Questions encoded with int8 weights: agreement with the exact encoder, batches, and when they are used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnxruntime import InferenceSession

from rule_server import EncoderError, RuleService, Settings
from rule_server.api.app import create_app
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.encoders.int8 import (
    CONSTANTS,
    LARGEST,
    Int8Products,
    quantise,
    quantise_graph,
    smoothing_factors,
)
from rule_server.retrieval.encoders.onnx import INT8_MODEL_FILE
from rule_server.retrieval.encoders.paired import PairedEncoder, split_vectors
from rule_server.retrieval.encoders.processor import has_int8_products
from rule_server.retrieval.index import RuleIndex, index_entries
from rule_server.rulebook import load_rulebook
from tests.fakes.processes.live_server import LiveServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from rule_server.retrieval.encoders.int8 import Floats
    from rule_server.settings import Precision

needs_int8 = pytest.mark.skipif(not has_int8_products(), reason="needs a processor with fast int8 products")


def open_encoder(folder: Path, precision: Precision = "auto") -> PairedEncoder:
    store = Artefact(folder)
    current = store.current()
    assert current is not None
    return store.encoder(current.encoder, 1, precision)


@pytest.fixture(scope="module")
def rounded(built_artefact: Path) -> PairedEncoder:
    return open_encoder(built_artefact, "int8")


def texts_of_rules(rules: Path) -> list[str]:
    return [text for _, text in index_entries(load_rulebook([rules]))][::25]


@needs_int8
def test_vectors_with_int8_weights_are_near_the_exact_ones(
    rounded: PairedEncoder, paired_encoder: PairedEncoder
) -> None:
    texts = texts_of_rules(Path(__file__).resolve().parents[3] / "rules")
    pairs = zip(
        split_vectors(rounded.encode(texts), rounded.fingerprint),
        split_vectors(paired_encoder.encode(texts), rounded.fingerprint),
        (0.998, 0.98),
        strict=True,
    )
    for ours, exact, least in pairs:
        assert ours is not None
        assert exact is not None
        known = exact.any(axis=1)
        assert (ours * exact).sum(1)[known].min() >= least


@needs_int8
@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_a_vector_with_int8_weights_is_the_same_to_the_last_bit_alone_and_in_any_batch(
    rounded: PairedEncoder, texts: list[str]
) -> None:
    texts = ["how to kill a process", *texts, "Übersetze «Guten Morgen» ins Französische " * 9]
    alone = np.concatenate([rounded.encode([text]) for text in texts])
    assert np.array_equal(alone, rounded.encode(texts))


@needs_int8
def test_an_index_holds_exact_vectors_whatever_encodes_the_questions(
    rounded: PairedEncoder, paired_encoder: PairedEncoder, rules: Path
) -> None:
    rulebook = load_rulebook([rules])
    built, exact = (RuleIndex.build(rulebook, encoder) for encoder in (rounded, paired_encoder))
    assert np.array_equal(built.vectors, exact.vectors)


@needs_int8
@pytest.mark.parametrize(("setting", "precision"), [("auto", "int8"), ("exact", "exact")])
def test_a_service_uses_int8_unless_told_otherwise_and_says_so(
    artefact: Path, rules: Path, setting: Precision, precision: str
) -> None:
    settings = Settings(dir=rules, artefact=artefact, watch=False, precision=setting)
    service = RuleService(load_or_build(settings, lambda _: None), settings)
    with LiveServer(create_app(service)) as served:
        assert httpx2.get(f"{served.origin}/readyz").json()["precision"] == precision
        found = httpx2.post(f"{served.origin}/v1/consult", json={"situation": "Write me a computer virus."})
    assert found.json()["rules"][0]["id"] == "cyber.malware"


def test_an_encoder_without_int8_weights_stays_exact_and_refuses_int8(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rule_server.retrieval.artefact.has_int8_products", lambda: True)
    (next((artefact / "encoder").iterdir()) / INT8_MODEL_FILE).unlink(missing_ok=True)
    assert open_encoder(artefact).precision == "exact"
    with pytest.raises(EncoderError, match=r"has no encoder with int8 weights.*ASCL_RULES_PRECISION=auto"):
        load_or_build(Settings(artefact=artefact, watch=False, precision="int8"), lambda _: None)


def test_int8_is_refused_on_a_processor_without_fast_products(
    built_artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rule_server.retrieval.artefact.has_int8_products", lambda: False)
    assert open_encoder(built_artefact).precision == "exact"
    with pytest.raises(EncoderError, match=r"needs a processor with AVX2.*=auto"):
        open_encoder(built_artefact, "int8")


@pytest.mark.parametrize(
    ("cpuinfo", "fast"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", True),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse4_2 avx\n", False),
        ("", False),
    ],
)
def test_int8_is_for_processors_with_fast_products(tmp_path: Path, cpuinfo: str, fast: bool) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo, encoding="utf-8")
    assert has_int8_products(file) is fast
    assert not has_int8_products(tmp_path / "missing")


@needs_int8
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1e-6, 1.0, 1e4]))
def test_a_product_differs_from_the_exact_one_by_at_most_the_rounding(seed: int, size: float) -> None:
    random = np.random.default_rng(seed)
    values = (random.standard_normal((5, 24)) * size * random.uniform(0.1, 10, (5, 1))).astype(np.float32)
    matrix = random.standard_normal((24, 7)).astype(np.float32)
    weights, scales = quantise(matrix)
    product = run_product(values, weights, scales)
    row_steps = np.abs(values).max(axis=1, keepdims=True) / LARGEST
    # Each value and weight is rounded by at most half a step.
    bound = (
        row_steps / 2 * np.abs(matrix).sum(axis=0) + np.abs(values).sum(axis=1, keepdims=True) * scales / 2
    )
    bound += 24 * row_steps * scales / 4
    assert (np.abs(product - values @ matrix) <= bound * 1.01 + 1e-9).all()


def run_product(
    values: Floats, weights: np.ndarray[tuple[int, ...], np.dtype[np.int8]], scales: Floats
) -> Floats:
    """Multiplies by a graph that consists of one product."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = []

    def add(operator: str, *inputs: str, output: str | None = None, **attributes: object) -> str:
        output = output or f"node{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    products = Int8Products(add, 18)
    products.multiply(products.round_rows("values"), "weights", "scales", output="product")
    constants = CONSTANTS | {"weights": weights, "scales": scales}
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT, [None, 24])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [None, 7])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    (product,) = InferenceSession(model.SerializeToString()).run(None, {"values": values})
    return np.asarray(product)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_large_feature_leaves_precision_to_the_others_of_its_row(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_normal((40, 24)).astype(np.float32)
    values[:, 3] *= 100
    matrix = random.standard_normal((24, 7)).astype(np.float32)
    matrix[3] /= 100
    factors = smoothing_factors(np.abs(values).max(axis=0), [matrix])

    def error(values: Floats, matrix: Floats, exact: Floats) -> float:
        weights, scales = quantise(matrix)
        steps = np.abs(values).max(axis=1, keepdims=True) / LARGEST
        rounded = np.round(values / steps) * steps
        return float(np.square(rounded @ (weights * scales) - exact).mean())

    exact = values @ matrix
    assert error(values / factors, matrix * factors[:, None], exact) < error(values, matrix, exact) / 10


def two_layers(random: np.random.Generator, outlier: float) -> Any:
    """Returns a graph that normalises values `x` and has two layers. A feature between them may be large."""
    from onnx import helper, numpy_helper

    first = random.standard_normal((24, 48)).astype(np.float32)
    first[:, 5] *= outlier
    constants = {
        "gain": np.ones(24, np.float32),
        "first": first,
        "first_bias": random.standard_normal(48).astype(np.float32),
        "second": random.standard_normal((48, 16)).astype(np.float32),
        "second_bias": random.standard_normal(16).astype(np.float32),
    }
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain"], ["normal"]),
        helper.make_node("MatMul", ["normal", "first"], ["product"]),
        helper.make_node("Add", ["first_bias", "product"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["active"]),
        helper.make_node("MatMul", ["active", "second"], ["outer"]),
        helper.make_node("Add", ["outer", "second_bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two_layers",
        [helper.make_tensor_value_info("x", 1, ["rows", 24])],
        [helper.make_tensor_value_info(name, 1, ["rows", None]) for name in ("y", "normal", "active")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model: Any, values: Floats) -> list[Floats]:
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(one) for one in session.run(None, {"x": values})]


def quantised(outlier: float) -> tuple[Any, Floats, Floats]:
    """Returns the graph with int8 weights, values, and what they give exactly."""
    random = np.random.default_rng(1)
    model = two_layers(random, outlier)
    values = random.standard_normal((200, 24)).astype(np.float32)
    exact, *inner = run(model, values)
    ranges = zip(("normal", "active"), inner, strict=True)
    quantise_graph(model, {name: np.stack((own.min(axis=0), own.max(axis=0))) for name, own in ranges})
    return model, values, exact


def operators(nodes: Iterable[Any]) -> list[str]:
    return [node.op_type for node in nodes]


def test_rows_share_a_scale_unless_a_feature_is_far_larger_than_others() -> None:
    product = ["QuantizeLinear", "MatMulIntegerToFloat"]
    shared, _, _ = quantised(1)
    assert operators(shared.graph.node) == ["LayerNormalization", "Mul", *product, "Relu", *product]
    own, _, _ = quantised(20)
    rows = ["ReduceMax", "Clip", "Div", "Mul", "QuantizeLinear", "Mul", "MatMulIntegerToFloat", "Mul", "Add"]
    assert operators(own.graph.node) == ["LayerNormalization", "Mul", *product, "Relu", *rows]


@needs_int8
@pytest.mark.parametrize("outlier", [1, 20])
def test_a_graph_with_int8_weights_is_near_the_exact_one_and_independent_of_the_batch(outlier: float) -> None:
    model, values, exact = quantised(outlier)
    rounded = run(model, values)[0]
    assert np.linalg.norm(rounded - exact) <= 0.02 * np.linalg.norm(exact)
    assert np.array_equal(rounded, np.concatenate([run(model, row[None])[0] for row in values]))
