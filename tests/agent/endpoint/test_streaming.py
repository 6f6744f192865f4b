"""Assembly of streamed calls, including servers that send one index for all calls."""

from __future__ import annotations

from typing import Any

import pytest

from agent.endpoint import StreamedReply


def piece(
    id: str | None = None, name: str | None = None, arguments: str = "", index: int | None = 0
) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {"arguments": arguments}}
    if id is not None:
        call["id"] = id
    if name is not None:
        call["function"]["name"] = name
    return call if index is None else {**call, "index": index}


RULES, WEATHER = '{"situation": "gun"}', '{"city": "Oslo"}'
BOTH = [("consult_safety_rules", RULES), ("get_weather", WEATHER)]


@pytest.mark.parametrize(
    ("pieces", "calls"),
    [
        pytest.param(
            [piece("a", "consult_safety_rules", RULES), piece("b", "get_weather", WEATHER)], BOTH, id="whole"
        ),
        pytest.param(
            [
                *(piece("a", "consult_safety_rules"), piece(arguments=RULES[:9]), piece(arguments=RULES[9:])),
                *(piece("b", "get_weather"), piece(arguments=WEATHER[:5]), piece(arguments=WEATHER[5:])),
            ],
            BOTH,
            id="in pieces",
        ),
        pytest.param(
            [piece("a", "consult_safety_rules", RULES), piece(None, "get_weather"), piece(arguments=WEATHER)],
            BOTH,
            id="a new name without an id",
        ),
        pytest.param(
            [piece(None, "look", '{"x": 1}'), piece(None, "look", '{"x": 2}')],
            [("look", '{"x": 1}'), ("look", '{"x": 2}')],
            id="one name without ids",
        ),
        pytest.param(
            [
                *(piece("", "look"), piece(arguments='{"x": 1}')),
                *(piece("", "look"), piece(arguments='{"x": 2}')),
            ],
            [("look", '{"x": 1}'), ("look", '{"x": 2}')],
            id="one name in pieces without ids",
        ),
        pytest.param(
            [piece("a", "look", "{}"), piece("b", "look", "{}"), piece("c", "look", "{}", index=1)],
            [("look", "{}")] * 3,
            id="a shared index before another one",
        ),
        pytest.param(
            [
                piece("a", "look", '{"x"', index=1),
                piece("b", "see", "{}", index=0),
                piece(None, None, ": 1}", 1),
            ],
            [("see", "{}"), ("look", '{"x": 1}')],
            id="interleaved indices",
        ),
        pytest.param(
            [piece("a", "look", '{"x"'), piece("a", "look", ": "), piece("a", "look", "1}")],
            [("look", '{"x": 1}')],
            id="id and name repeated in every piece",
        ),
        pytest.param(
            [piece("a", "look"), piece("b", None, '{"x"'), piece("c", None, ": 1}")],
            [("look", '{"x": 1}')],
            id="a new id in every piece",
        ),
        pytest.param(
            [piece("a", "lo"), piece(None, "ok"), piece(None, None, "{}")],
            [("look", "{}")],
            id="a split name",
        ),
        pytest.param(
            [piece("a", "look", "{}", None), piece("b", "see", "{}", None)],
            [("look", "{}"), ("see", "{}")],
            id="without an index",
        ),
    ],
)
def test_pieces_are_assembled_to_the_calls_of_the_model(
    pieces: list[dict[str, Any]], calls: list[tuple[str, str]]
) -> None:
    reply = StreamedReply(lambda kind, text: None)
    for call in pieces:
        reply.add({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})
    message = reply.data()["choices"][0]["message"]
    functions = [call["function"] for call in message["tool_calls"]]
    assert [(function["name"], function["arguments"]) for function in functions] == calls
