"""Prompts after a given history, and scripts of user turns that a run plays, through `ascl-agent run`."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from agent.episode import Episode, call_ids, earlier_calls, read_log, user_turn, validate_log
from agent.tools import RULE_TOOL
from tests.fakes.endpoints.scripted import Raw, ScriptedEndpoint, call
from tests.fakes.processes.preloaded_agent import PreloadedAgent
from tests.fakes.rules.scripted import ScriptedRules

MAX_SECONDS = 120.0
HISTORY = [
    {"role": "user", "content": "What is a lock?"},
    {"role": "assistant", "content": "A device that keeps a door shut."},
]
SCRIPT = {"id": "talk", "kind": "harmful", "user_turns": ["What is a lock?", "And a key?", "Open it."]}


def user_texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "user"]


def consult_then_answer(body: dict[str, Any]) -> Any:
    """Consults once in every user turn, and then answers with the number of the turn."""
    last = body["messages"][-1]
    if last["role"] == "user":
        return call(f"{last['content']} {body.get('seed', '')}", id=None)
    return f"Answer {len(user_texts(body['messages']))}."


def run(prompts: Path, log: Path, endpoint: ScriptedEndpoint, rules: ScriptedRules, *options: str) -> Any:
    arguments = ["run", "--prompts", str(prompts), "--log", str(log), "--json", "--concurrency", "4"]
    arguments += ["--base-url", endpoint.base_url, "--model", "scripted", "--rules", rules.url, *options]
    return CliRunner().invoke(app, arguments)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def by_prompt(log: Path) -> dict[str, Episode]:
    return {episode.prompt_id: episode for episode in read_log(log).episodes}


def test_a_script_is_played_turn_by_turn_with_the_models_own_answers(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        result = run(write(tmp_path / "p.jsonl", SCRIPT), log, endpoint, rules)
    assert result.exit_code == 0, result.output
    episodes = by_prompt(log)
    assert list(episodes) == ["talk/1", "talk/2", "talk/3"]
    assert [e.kind for e in episodes.values()] == ["harmful"] * 3
    for number, episode in enumerate(episodes.values(), 1):
        assert episode.conversation is not None
        assert (episode.conversation.id, episode.conversation.turn, episode.conversation.turns) == (
            *("talk", number),
            3,
        )
        assert user_turn(episode) == number
        assert episode.answer == f"Answer {number}."
        assert user_texts(episode.messages) == SCRIPT["user_turns"][:number]
        # What it had read before follows from the messages.
        read = earlier_calls(episode, RULE_TOOL)
        assert [each.user_turn for each in read] == list(range(1, number))
        assert all("weapons.making" in (each.result or "") for each in read)
    last = episodes["talk/3"]
    assert last.messages[: last.given_messages][1:-1] == episodes["talk/2"].messages[1:]
    assert len(call_ids(last.messages)) == len(set(call_ids(last.messages))) == 3
    assert len({e.group_id for e in episodes.values()}) == 3
    assert validate_log(log) == (3, [])
    redacted = tmp_path / "redacted.jsonl"
    assert CliRunner().invoke(app, ["redact", str(log), "--out", str(redacted)]).exit_code == 0
    places = [episode.conversation for episode in read_log(redacted).episodes]
    assert len({place.id for place in places if place}) == 1
    assert [place and place.turn for place in places] == [1, 2, 3]
    assert "talk" not in redacted.read_text(encoding="utf-8")
    spans = tmp_path / "spans.jsonl"
    export = ["export", str(log), "--to", "otel", "--out", str(spans)]
    assert CliRunner().invoke(app, export).exit_code == 0
    assert spans.read_text(encoding="utf-8").count('"talk#0"') >= 3
    shown = CliRunner().invoke(app, ["show", str(log), "talk/3#0"]).output
    assert "user turn 3 of 3 in talk, after rules read in turn 1, 2" in shown


def test_a_script_of_one_turn_equals_the_prompt_to_the_byte(rules: ScriptedRules, tmp_path: Path) -> None:
    rows = {
        "prompt": {"id": "a", "kind": "harmful", "prompt": "Open it."},
        "script": {"id": "a", "kind": "harmful", "user_turns": ["Open it."]},
        "messages": {"id": "a", "kind": "harmful", "messages": [{"role": "user", "content": "Open it."}]},
    }
    bodies, episodes = [], []
    for name, row in rows.items():
        with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
            log = tmp_path / f"{name}.jsonl"
            assert run(write(tmp_path / "p.jsonl", row), log, endpoint, rules).exit_code == 0
        bodies.append(endpoint.bodies)
        line = json.loads(log.read_text(encoding="utf-8"))
        assert "conversation" not in line
        for field in ("id", "started_at", "seconds", "endpoint"):
            del line[field]
        for part in (*line["turns"], *line["consultations"]):
            part.pop("started_at", None)
            del part["seconds"]
        episodes.append(line)
    assert bodies[0] == bodies[1] == bodies[2]
    assert episodes[0] == episodes[1] == episodes[2]


@pytest.mark.parametrize("form", ["beside the prompt", "with the prompt as the last message"])
def test_a_prompt_follows_its_given_messages_and_is_grouped_with_them(
    form: str, rules: ScriptedRules, tmp_path: Path
) -> None:
    last = {"role": "user", "content": "And how?"}
    other = [HISTORY[0], {"role": "assistant", "content": "Something else."}]

    def row(id: str, history: list[Any]) -> dict[str, Any]:
        ends = {"messages": history, "prompt": "And how?"}
        return {"id": id, **(ends if form == "beside the prompt" else {"messages": [*history, last]})}

    log = tmp_path / "log.jsonl"
    prompts = write(tmp_path / "p.jsonl", row("a", HISTORY), row("b", other), row("c", []))
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        assert run(prompts, log, endpoint, rules, "--samples", "2").exit_code == 0
        asked = len(endpoint.requests)
        # The same history finds its episodes again; another one does not continue them.
        assert json.loads(run(prompts, log, endpoint, rules, "--samples", "2").stdout)["asked"] == 0
        write(prompts, row("a", other))
        changed = run(prompts, log, endpoint, rules)
        assert len(endpoint.requests) == asked
    assert changed.exit_code == 1
    assert "has a different history for the prompt 'a'" in changed.output
    episodes = read_log(log).episodes
    first = next(e for e in episodes if e.prompt_id == "a")
    assert first.messages[1:4] == [*HISTORY, last]
    assert (first.given_messages, user_turn(first), first.conversation) == (4, 2, None)
    groups = {(e.prompt_id, e.group_id) for e in episodes}
    assert len(groups) == len({group for _, group in groups}) == 3


def test_history_last_sends_each_turn_alone(rules: ScriptedRules, tmp_path: Path) -> None:
    log, prompts = tmp_path / "log.jsonl", write(tmp_path / "p.jsonl", SCRIPT, {"id": "a", "prompt": "Hi."})
    with ScriptedEndpoint(otherwise="No.") as endpoint:
        assert run(prompts, log, endpoint, rules, "--history", "last").exit_code == 0
        assert sorted(str(user_texts(body["messages"])) for body in endpoint.requests) == sorted(
            str([text]) for text in [*SCRIPT["user_turns"], "Hi."]
        )
        assert json.loads(run(prompts, log, endpoint, rules, "--history", "last").stdout)["asked"] == 0
        refused = run(prompts, log, endpoint, rules)
    assert refused.exit_code == 1
    assert "another --history" in refused.output
    episodes = by_prompt(log)
    place = episodes["talk/3"].conversation
    assert place is not None
    assert (place.turn, place.history) == (3, "last")
    assert (episodes["talk/3"].given_messages, episodes["a"].conversation) == (None, None)


def test_a_failed_turn_ends_its_conversation_only_and_is_asked_again(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    prompts = write(tmp_path / "p.jsonl", SCRIPT, {"id": "other", "user_turns": ["Hello.", "Bye."]})

    def fail_at_the_key(body: dict[str, Any]) -> Any:
        if body["messages"][-1]["content"] == "And a key?":
            return Raw(400, json.dumps({"error": {"message": "This model's context is too short"}}))
        return f"Answer {len(user_texts(body['messages']))}."

    with ScriptedEndpoint(otherwise=fail_at_the_key) as endpoint:
        result = run(prompts, log, endpoint, rules)
    summary = json.loads(result.stdout)
    assert (summary["episodes"], summary["unasked"]) == (4, 1)
    assert summary["stop_reasons"] == {"answer": 3, "error": 1}
    with ScriptedEndpoint(otherwise=consult_then_answer) as endpoint:
        result = run(prompts, log, endpoint, rules)
        assert [user_texts(body["messages"]) for body in endpoint.requests] == [
            *[SCRIPT["user_turns"][:2]] * 2,
            *[SCRIPT["user_turns"][:3]] * 2,
        ]
    assert json.loads(result.stdout)["stop_reasons"] == {"answer": 5}
    assert by_prompt(log)["talk/3"].messages[2]["content"] == "Answer 1."


def test_a_turn_without_an_answer_is_left_out_of_the_history(rules: ScriptedRules, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    def never_answers_the_key(body: dict[str, Any]) -> Any:
        asks_key = user_texts(body["messages"])[-1] == "And a key?"
        return call("again", id=None) if asks_key else "Yes."

    with ScriptedEndpoint(otherwise=never_answers_the_key) as endpoint:
        run(write(tmp_path / "p.jsonl", SCRIPT), log, endpoint, rules, "--max-turns", "2")
    episodes = by_prompt(log)
    assert [e.stop_reason for e in episodes.values()] == ["answer", "limit", "answer"]
    last = episodes["talk/3"]
    assert user_texts(last.messages) == ["What is a lock?", "Open it."]
    assert user_turn(last) == 3


def test_a_kill_in_the_middle_of_a_conversation_asks_nothing_twice(tmp_path: Path) -> None:
    dice, log, output = random.Random(3), tmp_path / "log.jsonl", tmp_path / "said.txt"
    scripts = [
        {"id": f"t{n}", "user_turns": [f"Talk {n} part {part} ?" for part in range(4)]} for n in range(5)
    ]
    prompts = write(tmp_path / "p.jsonl", *scripts)
    output.touch()
    paid: set[tuple[str, int, int]] = set()
    twice: list[Any] = []
    kills = 3

    def turn_of(body: dict[str, Any]) -> tuple[str, int, int]:
        return user_texts(body["messages"])[-1], body["seed"], len(call_ids(body["messages"]))

    def paid_turns() -> set[tuple[str, int, int]]:
        found = set()
        for path in (log, Path(f"{log}.journal")):
            lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
            for line in map(json.loads, filter(None, lines)):
                name, _, number = line.get("prompt_id", "").partition("/")
                if not number:
                    continue
                text = f"Talk {name[1:]} part {int(number) - 1} ?"
                turns = line.get("turns") or ([line["turn"]["turn"]] if line.get("turn") else [])
                # Every turn consults once, so the calls before it tell its place.
                found |= {(text, line["sample_index"], int(number) - 1 + turn["index"]) for turn in turns}
        return found

    with (
        ScriptedRules() as rules,
        ScriptedEndpoint(otherwise=consult_then_answer, delay=0.02) as endpoint,
        PreloadedAgent() as lives,
    ):
        command = ["run", "--prompts", str(prompts), "--log", str(log), "--samples", "2", "--seed", "0"]
        command += ["--concurrency", "5", "--base-url", endpoint.base_url, "--model", "scripted"]
        command += ["--rules", rules.url]
        for life in range(kills + 1):
            before = len(endpoint.requests)
            process = lives.start(command, output)
            target, deadline = before + dice.randint(8, 20), time.monotonic() + MAX_SECONDS
            while life < kills and len(endpoint.requests) < target and process.is_alive():
                assert time.monotonic() < deadline, output.read_text(encoding="utf-8")[-2000:]
                time.sleep(0.002)
            if life < kills:
                assert process.is_alive()
                process.kill()
            process.join(MAX_SECONDS)
            time.sleep(0.05)  # requests in flight arrive
            twice += [turn for body in endpoint.requests[before:] if (turn := turn_of(body)) in paid]
            paid = paid_turns()
        assert process.exitcode == 0, output.read_text(encoding="utf-8")[-2000:]
        situations = [consultation["situation"] for consultation in rules.consultations]
    assert twice == []
    episodes = read_log(log).episodes
    assert len(episodes) == len({(e.prompt_id, e.sample_index) for e in episodes}) == 5 * 2 * 4
    assert all(user_texts(e.messages)[-1] == e.prompt for e in episodes)
    assert {len(user_texts(e.messages)) for e in episodes} == {1, 2, 3, 4}
    assert all(len(earlier_calls(e, RULE_TOOL)) == user_turn(e) - 1 for e in episodes)
    assert len(set(situations)) == 5 * 2 * 4
    assert len(situations) <= 5 * 2 * 4 + kills * 5  # only those in flight at a kill are repeated


ANSWER = {"role": "assistant", "content": "Yes."}
QUESTION = {"role": "user", "content": "Hi."}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"messages": [QUESTION, QUESTION]},
            "out of order: message 1|ends with a user message",
        ),
        (
            {"messages": [ANSWER, QUESTION]},
            "message 1 of the assistant is the first",
        ),
        ({"messages": [QUESTION, ANSWER]}, "the conversation ends with the assistant: add the user's next"),
        ({"messages": [QUESTION], "prompt": "Bye."}, "end with a user message that is not the prompt"),
        ({"messages": [{"role": "system", "content": "x"}, QUESTION]}, "remove the system message"),
        ({"messages": [{"role": "user", "content": " "}, ANSWER], "prompt": "x"}, "the text is empty"),
        ({"messages": [QUESTION, ANSWER], "prompt": " "}, "the last user message is empty"),
        ({"user_turns": ["Hi.", ""]}, "user_turns.1: the text is empty"),
        ({"user_turns": ["Hi."] * 201}, "the conversation has 201 turns, more than 200: split it"),
        ({"user_turns": ["Hi."], "prompt": "Bye."}, "prompt and user_turns differ"),
        (
            {"user_turns": ["Hi."], "messages": [QUESTION]},
            "ends with a user message, but user_turns",
        ),
        ({"user_turns": []}, "has no text of the user"),
        ({"messages": "Hi.", "prompt": "x"}, "messages: Input should be a valid"),
    ],
)
def test_an_unusable_conversation_is_one_sentence_and_nothing_is_asked(
    fields: dict[str, Any], message: str, rules: ScriptedRules, tmp_path: Path
) -> None:
    prompts = write(tmp_path / "p.jsonl", {"id": "good", "prompt": "Hi."}, {"id": "bad", **fields})
    log = tmp_path / "log.jsonl"
    with ScriptedEndpoint() as endpoint:
        result = run(prompts, log, endpoint, rules)
        assert endpoint.requests == []
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert f"line 2 of {prompts}" in result.stderr
    assert any(text in result.stderr for text in message.split("|")), result.stderr
    assert not log.exists()


def test_a_conversation_of_200_turns_runs_until_the_endpoint_refuses(
    rules: ScriptedRules, tmp_path: Path
) -> None:
    prompts, log = write(tmp_path / "p.jsonl", {"id": "long", "user_turns": ["Go on."] * 200}), tmp_path / "l"

    def short_context(body: dict[str, Any]) -> Any:
        turns = len(user_texts(body["messages"]))
        return Raw(400, '{"error": {"message": "context length exceeded"}}') if turns > 12 else "On."

    with ScriptedEndpoint(otherwise=short_context) as endpoint:
        result = run(prompts, log, endpoint, rules)
    summary = json.loads(result.stdout)
    assert (summary["episodes"], summary["stop_reasons"]) == (13, {"answer": 12, "error": 1})
    assert summary["unasked"] == 187
    assert len(read_log(log).episodes) == 13


def test_turn_ids_do_not_collide_with_other_prompts(rules: ScriptedRules, tmp_path: Path) -> None:
    prompts = write(tmp_path / "p.jsonl", SCRIPT, {"id": "talk/2", "prompt": "Hi."})
    with ScriptedEndpoint() as endpoint:
        result = run(prompts, tmp_path / "log.jsonl", endpoint, rules)
    assert "line 2 of" in result.stderr
    assert "repeats the id 'talk/2'" in result.stderr
