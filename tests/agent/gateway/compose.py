"""Composes random behaviours of upstreams and random conversations, for property tests and for the fuzzer."""

from __future__ import annotations

import asyncio
import dataclasses
from random import Random
from typing import Any, get_args, get_type_hints

from tests.agent.gateway.conformance import TOOLS, Api, ApplicationRun, in_process, misplaced_hints
from tests.fakes.endpoints.upstream_behaviours import PLAIN, Behaviour
from tests.fakes.endpoints.upstream_simulator import RULE_TOOL, Call, Conversation, Simulator, Turn

_HINTS = get_type_hints(Behaviour)
_NUMBERS: dict[str, tuple[int, ...]] = {"split": (0, -1, 1, 2, 3, 7, 64), "arguments_size": (0, 1, 5, 40)}
_NAMES = ("{}", "{}<|channel|>commentary", "functions.{}")


def random_behaviour(random: Random, api: Api) -> Behaviour:
    """Returns a behaviour with a few facets changed; those that contradict each other are put right."""
    facets: dict[str, Any] = {}
    names = [field.name for field in dataclasses.fields(Behaviour)]
    for name in random.sample(names, random.randint(0, 6)):
        if name in _NUMBERS:
            facets[name] = random.choice(_NUMBERS[name])
        elif name == "rename":
            facets[name] = random.choice(_NAMES)
        elif _HINTS[name] is bool:
            facets[name] = not getattr(PLAIN, name)
        else:
            facets[name] = random.choice(get_args(_HINTS[name]))
    behaviour = dataclasses.replace(PLAIN, **facets)
    if api == "responses" and behaviour.ids in ("absent", "empty", "null", "same"):
        behaviour = dataclasses.replace(behaviour, ids="numbered")
    if behaviour.positions == "absent":  # fragments without positions cannot be assigned to calls
        behaviour = dataclasses.replace(behaviour, arguments_size=0)
    if behaviour.positions == "zero" and behaviour.ids == "same":  # nothing distinguishes the calls
        behaviour = dataclasses.replace(behaviour, ids="unique")
    if behaviour.positions == "zero" and behaviour.ids in ("absent", "empty", "null"):
        behaviour = dataclasses.replace(behaviour, repeats_id=False)
    if behaviour.interleaved and behaviour.positions != "right":
        behaviour = dataclasses.replace(behaviour, interleaved=False)
    if behaviour.repeats_id and behaviour.ids in ("absent", "empty", "null", "same"):
        behaviour = dataclasses.replace(behaviour, repeats_id=False)
    return behaviour


def random_turns(random: Random, marker: str) -> list[Turn]:
    """Returns the turns of a conversation; at most three in a row only consult, and the last has no calls."""
    turns: list[Turn] = []
    hidden = 0
    for number in range(random.randint(1, 5)):
        rule_calls = 0 if hidden >= 3 else random.choice((0, 0, 1, 1, 2))
        tool_calls = random.choice((0, 0, 1, 2))
        calls = [
            Call(RULE_TOOL, {"situation": f"{marker} situation {number}.{i}"}) for i in range(rule_calls)
        ]
        calls += [Call(random.choice(TOOLS), {"q": f"{marker} call {number}.{i}"}) for i in range(tool_calls)]
        random.shuffle(calls)
        turn = Turn(f"{marker} says {number}. ", tuple(calls))
        hidden = hidden + 1 if turn.hidden else 0
        turns.append(turn)
    if random.random() < 0.05:
        turns.append(Turn(status=random.choice((402, 429, 503))))
    turns.append(Turn(f"{marker} ends."))
    return turns


def play(seed: int, conversations: int = 6, **settings: Any) -> list[str]:
    """Plays interleaved random conversations of one caller, and returns the broken invariants."""
    random = Random(seed)
    simulator = Simulator()
    runs = []
    for number in range(conversations):
        marker = f"marker-{seed}{number:03}-"
        api: Api = random.choice(("chat", "responses"))
        behaviour = random_behaviour(random, api)
        conversation = Conversation(marker, random_turns(random, marker), behaviour)
        simulator.add(conversation)
        fields: dict[str, Any] = {}
        if behaviour.forbids_format_with_tools and random.random() < 0.5:
            fields["response_format"] = {"type": "json_object"}
        if api == "responses" and (behaviour.forgets_reasoning or random.random() < 0.3):
            fields["store"] = False
        if behaviour.forgets_reasoning and behaviour.reasoning == "plain":
            fields["include"] = []
        runs.append(ApplicationRun(conversation, api, stream=random.random() < 0.6, fields=fields))

    async def play_all() -> list[str]:
        send = in_process(simulator, max_consultations=random.choice((1, 2, 4)), **settings)
        return [
            fault for faults in await asyncio.gather(*(run.play(send) for run in runs)) for fault in faults
        ]

    faults = [*asyncio.run(play_all()), *simulator.faults]
    if settings.get("hint"):
        for conversation in simulator.conversations.values():
            faults += misplaced_hints(conversation)
    return faults
