"""The spans against the published GenAI conventions, as OpenTelemetry's own package lists them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
import warnings
from pathlib import Path
from typing import Any

import opentelemetry.semconv._incubating.attributes as published
import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes

from agent.episode import Episode
from agent.export.otel import to_otel_rows
from tests.fakes.episodes.log import make_episode

# By the conventions' requirement levels; those required under a condition that we meet are among them.
REQUIRED = {
    "invoke_agent": {
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.agent.name",
        "gen_ai.conversation.id",
    },
    "chat": {"gen_ai.provider.name", "gen_ai.request.model", "gen_ai.conversation.id", "server.port"},
    "execute_tool": {"gen_ai.tool.name"},
}
NAMED_BY = {
    "invoke_agent": "gen_ai.agent.name",
    "chat": "gen_ai.request.model",
    "execute_tool": "gen_ai.tool.name",
}
OBJECTS = ("gen_ai.tool.call.arguments", "gen_ai.tool.call.result")
LISTS = ("gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.tool.definitions")
PARTS = {
    "text": {"content"},
    "reasoning": {"content"},
    "tool_call": {"name", "id", "arguments"},
    "tool_call_response": {"id", "response"},
}


def attribute_names() -> set[str]:
    """Every published name, without those given up; the GenAI ones are marked as moved elsewhere."""
    names = set()
    for module in pkgutil.iter_modules(published.__path__):
        text = (Path(str(published.__path__[0])) / f"{module.name}.py").read_text("utf-8")
        pattern = r'^[A-Z_0-9]+: Final = "([^"]+)"\n"""\n(.*?)"""'
        found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
        gone = r"^Deprecated: (?!Moved to)"
        names |= {name for name, span_attributes in found if not re.match(gone, span_attributes.strip())}
    return names


def values(enum: str) -> set[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = importlib.import_module(gen_ai_attributes.__name__)
        return {each.value for each in getattr(module, enum)}


def episodes() -> list[Episode]:
    fault = {"boundary": "endpoint", "type": "http_500", "message": "it broke"}
    thoughtful = make_episode("t", "harmful", "No.", consult=True, endpoint="https://api.openai.com/v1")
    thoughtful.messages[-1]["reasoning_content"] = "Hm."
    thoughtful.sampling_sent |= {"seed": 1, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.1}
    thoughtful.turns[0].usage = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    thoughtful.model_returned = "model-2026"
    broken = make_episode("b", consult=True, arguments='{"situation": oops')
    broken.consultations[0].error = "not JSON"
    return [
        thoughtful,
        broken,
        make_episode("d"),
        make_episode("f", answer=None, stop_reason="error", error=fault),
    ]


def spans(content: bool) -> list[dict[str, Any]]:
    rows = list(to_otel_rows(episodes(), content=content))
    found = [s for row in rows for r in row["resourceSpans"] for g in r["scopeSpans"] for s in g["spans"]]
    assert len(found) >= 10
    return found


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {entry["key"]: next(iter(entry["value"].values())) for entry in span["attributes"]}


def test_every_attribute_is_published_or_ours() -> None:
    known = attribute_names()
    assert {"gen_ai.operation.name", "error.type", "server.port"} <= known
    assert "gen_ai.system" not in known, "what was given up is not known"
    used = {name for span in spans(True) for name in attributes(span)}
    assert {name for name in used if not name.startswith("ascl.")} <= known
    assert len(used & known) > 20
    resource = next(iter(to_otel_rows(episodes(), content=False)))["resourceSpans"][0]["resource"]
    assert {entry["key"] for entry in resource["attributes"]} <= known


@pytest.mark.parametrize("content", [False, True])
def test_required_attributes_are_there_and_spans_are_named_by_them(content: bool) -> None:
    operations = values("GenAiOperationNameValues")
    for span in spans(content):
        span_attributes = attributes(span)
        operation = span_attributes["gen_ai.operation.name"]
        assert operation in operations
        assert REQUIRED[operation] <= set(span_attributes)
        assert span["name"] == f"{operation} {span_attributes[NAMED_BY[operation]]}"
        assert ("error.type" in span_attributes) == (span["status"]["code"] == 2)
        if "server.address" in span_attributes:
            assert int(span_attributes["server.port"]) > 0


def test_a_known_provider_has_its_published_name() -> None:
    from agent.export.otel import _PROVIDERS

    assert set(_PROVIDERS.values()) <= values("GenAiProviderNameValues")
    assert "openai" in {attributes(span).get("gen_ai.provider.name") for span in spans(False)}


def test_messages_arguments_and_results_have_the_published_form() -> None:
    types = set()
    for span in spans(True):
        span_attributes = attributes(span)
        for name in OBJECTS:
            assert isinstance(json.loads(span_attributes.get(name, "{}")), dict)
        for name in LISTS:
            for entry in json.loads(span_attributes.get(name, "[]")):
                assert name == LISTS[2] or isinstance(entry["role"], str)
                for part in entry.get("parts", []):
                    assert PARTS[part["type"]] <= set(part)
                    types.add(part["type"])
        assert all(
            "finish_reason" in m for m in json.loads(span_attributes.get("gen_ai.output.messages", "[]"))
        )
    assert types == set(PARTS)
