import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent.rollout.prompts import MAX_TURNS
from evaluation.prompts import Conversation, PromptError, load_conversations, load_prompts
from evaluation.prompts.conversations import ATTACKS
from rule_server import load_rulebook

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def suite() -> list[Conversation]:
    return load_conversations("builtin:conversations")


def by_id(suite: list[Conversation]) -> dict[str, Conversation]:
    return {conversation.id: conversation for conversation in suite}


def text_of(conversation: Conversation) -> str:
    given = [message.content or "" for message in conversation.messages]
    return "\n".join([*given, *conversation.user_turns]).casefold()


def test_the_suite_has_sixty_english_attacks_of_eight_kinds(suite: list[Conversation]) -> None:
    attacks = Counter(c.attack for c in suite if c.kind == "harmful" and c.lang == "en")
    assert set(attacks) == set(ATTACKS)
    assert min(attacks.values()) >= 6
    assert attacks.total() == 60


def test_a_third_of_the_suite_is_also_in_spanish_and_german(suite: list[Conversation]) -> None:
    conversations = by_id(suite)
    translated = [c for c in suite if c.lang != "en"]
    assert {c.lang for c in translated} == {"es", "de"}
    for language in ("es", "de"):
        harmful = [c for c in translated if c.lang == language and c.kind == "harmful"]
        assert len(harmful) >= 20
        assert {c.attack for c in harmful} == set(ATTACKS)
    for conversation in translated:
        original = conversations[conversation.id.replace(f"-{conversation.lang}", "")]
        assert original.lang == "en"
        assert (original.kind, original.attack, original.turns, original.expect) == (
            conversation.kind,
            conversation.attack,
            conversation.turns,
            conversation.expect,
        )


def test_each_attack_has_a_harmless_twin_of_as_many_turns_in_the_same_language(
    suite: list[Conversation],
) -> None:
    conversations = by_id(suite)
    for conversation in suite:
        twin = conversations[conversation.twin]
        assert {conversation.kind == "harmful", twin.kind == "harmful"} == {True, False}
        assert (twin.lang, twin.attack, twin.turns) == (
            conversation.lang,
            conversation.attack,
            conversation.turns,
        )
        assert len(twin.user_turns) == len(conversation.user_turns)
        assert [m.role for m in twin.messages] == [m.role for m in conversation.messages]


def test_every_script_has_two_to_five_short_user_turns_and_no_script_occurs_twice(
    suite: list[Conversation],
) -> None:
    assert {len(c.user_turns) for c in suite} == {2, 3, 4, 5}
    assert max(len(turn.split()) for c in suite for turn in c.user_turns) <= 40
    assert len({(c.messages, c.user_turns) for c in suite}) == len(suite)


def test_only_attacks_through_tool_results_have_a_given_history(suite: list[Conversation]) -> None:
    for conversation in suite:
        roles = [message.role for message in conversation.messages]
        assert roles == (
            ["user", "assistant", "tool", "assistant"] if conversation.attack == "tool_instructions" else []
        )


def test_harmful_conversations_list_phrases_that_occur_in_them(suite: list[Conversation]) -> None:
    for conversation in suite:
        assert conversation.phrases or conversation.kind != "harmful", conversation.id
        for phrase in conversation.phrases:
            assert phrase.casefold() in text_of(conversation), conversation.id


def test_harmful_conversations_say_from_which_turn_they_are_harmful(suite: list[Conversation]) -> None:
    conversations = by_id(suite)
    for conversation in suite:
        assert (conversation.harmful_from is not None) == (conversation.kind == "harmful"), conversation.id
        original = conversations[conversation.id.replace(f"-{conversation.lang}", "")]
        assert conversation.harmful_from == original.harmful_from


def test_expected_rules_exist_and_include_one_that_restricts_each_attack(suite: list[Conversation]) -> None:
    stances = {rule.id: rule.stance for rule in load_rulebook(ROOT / "rules").rules}
    for conversation in suite:
        assert set(conversation.expect) <= set(stances), conversation.id
        assert (conversation.expect == ()) == (conversation.kind == "benign_plain"), conversation.id
        if conversation.kind == "harmful":
            assert {stances[rule] for rule in conversation.expect} & {"decline", "limit"}, conversation.id


def test_the_suite_shares_no_text_with_the_built_in_prompts(suite: list[Conversation]) -> None:
    prompts = {p.prompt.casefold() for name in ("train", "held_out") for p in load_prompts(f"builtin:{name}")}
    assert not prompts & {turn.casefold() for c in suite for turn in c.user_turns}


def test_the_suite_is_the_default_and_is_not_a_set_of_single_prompts(suite: list[Conversation]) -> None:
    assert load_conversations() == suite
    with pytest.raises(PromptError, match="a suite of conversations, not a set of prompts") as caught:
        load_prompts("builtin:conversations")
    assert str(caught.value).endswith("use one of builtin:held_out, builtin:train, or a path")


def row(name: str, **fields: Any) -> dict[str, Any]:
    harmful = not name.endswith("-twin")
    return {
        "id": name,
        "kind": "harmful" if harmful else "benign_plain",
        "lang": "en",
        "attack": "escalation",
        "twin": f"{name}-twin" if harmful else name.removesuffix("-twin"),
        "user_turns": ["Hello.", "And then?"],
        **fields,
    }


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def call(name: str = "c1") -> dict[str, Any]:
    function = {"name": "open_page", "arguments": "{}"}
    return {"role": "assistant", "tool_calls": [{"id": name, "type": "function", "function": function}]}


def user(text: str = "Hi.") -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant() -> dict[str, Any]:
    return {"role": "assistant", "content": "Yes?"}


def result(name: str = "c1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": name, "content": "done"}


@pytest.mark.parametrize(
    ("messages", "user_turns", "turns"),
    [
        ([], ["One."] * MAX_TURNS, MAX_TURNS),
        ([user()], [], 1),
        ([user(), call(), result()], [], 1),
        ([user(), call(), result(), call("c2"), result("c2"), assistant()], ["More."], 2),
    ],
)
def test_accepted_conversations_count_given_and_scripted_turns(
    tmp_path: Path, messages: list[object], user_turns: list[str], turns: int
) -> None:
    fields = {"messages": messages, "user_turns": user_turns, "persona": "nurse {x}"}
    loaded = load_conversations(write(tmp_path / "c.jsonl", row("a", **fields), row("a-twin", **fields)))
    assert [conversation.turns for conversation in loaded] == [turns, turns]
    assert (loaded[0].model_extra or {})["persona"] == "nurse {x}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"user_turns": []}, "the conversation has no turns: write at least one text in user_turns"),
        ({"user_turns": ["Hi.", " \n"]}, "user_turns.1: the text is empty"),
        ({"user_turns": ["Hi."] * 201}, "the conversation has 201 turns, more than 200: split it"),
        ({"user_turns": ["x" * 100_001]}, "user_turns.0: String should have at most 100000 characters"),
        ({"messages": [user(), assistant()], "user_turns": []}, "the conversation ends with the assistant"),
        ({"messages": [user()]}, "the history ends with a user message, but user_turns follow"),
        (
            {"messages": [assistant()]},
            "the roles are out of order: message 1 of the assistant is the first, where one of the user",
        ),
        (
            {"messages": [user(), user()]},
            "the roles are out of order: message 2 of the user follows one of the user, where one of the "
            "assistant is expected",
        ),
        ({"messages": [user(), call(), result(), user()]}, "the roles are out of order: message 4"),
        ({"messages": [user(), call(), assistant()]}, "the tool call 'c1' has no result"),
        ({"messages": [user(), result()]}, "message 2 is the result of 'c1', which is not an unanswered"),
        ({"messages": [user(), call(), result(), result()]}, "message 4 is the result of 'c1'"),
        (
            {"messages": [{"role": "system", "content": "x"}]},
            "messages.0: the agent sets the system text",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0: the user message has no content"),
        ({"messages": [{**user(), "tool_calls": call()["tool_calls"]}]}, "messages.0: the user message has"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0: tool_call_id is required in a tool"),
        ({"harmful_from": 3}, "harmful_from is 3, but there are 2 user turns: name one of them"),
        ({"kind": "math"}, "kind: Input should be 'harmful'"),
        ({"lang": "English!"}, "lang: String should match pattern"),
    ],
)
def test_an_unusable_conversation_is_reported_with_its_line(
    tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "c.jsonl", row("a-twin"), row("a", **fields))
    with pytest.raises(PromptError) as caught:
        load_conversations(path)
    assert str(caught.value).startswith(f"{path}:2: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a")], "1: the twin 'a-twin' of 'a' is not in the file: add it"),
        (
            [row("a"), row("a-twin", user_turns=["Hello."])],
            "1: 'a' has 2 turns and its twin 'a-twin' has 1: give both the same number",
        ),
        ([row("a"), row("a-twin", twin="b")], "1: 'a' has the twin 'a-twin', whose twin is 'b'"),
        ([row("a"), row("a-twin", kind="harmful")], "1: of 'a' and its twin 'a-twin', exactly one must be"),
        ([row("a"), row("a-twin", lang="de")], "1: 'a' and its twin 'a-twin' must have the same lang"),
        ([row("a"), row("a-twin"), row("a")], "3: the id 'a' is already used on line 1"),
    ],
)
def test_pairs_that_do_not_match_are_reported(tmp_path: Path, rows: list[object], message: str) -> None:
    path = write(tmp_path / "c.jsonl", *rows)
    with pytest.raises(PromptError) as caught:
        load_conversations(path)
    assert str(caught.value).startswith(f"{path}:{message}")


def test_errors_of_files_name_the_file(tmp_path: Path) -> None:
    for spec in ("builtin:talks", "hub:a/b", str(tmp_path / "none.jsonl")):
        with pytest.raises(PromptError, match="is not a file of conversations: give a JSON Lines file or"):
            load_conversations(spec)
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(PromptError, match="contains no conversations"):
        load_conversations(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"id": "\xff"}')
    with pytest.raises(PromptError, match="not UTF-8"):
        load_conversations(tmp_path / "bytes.jsonl")
    (tmp_path / "deep.jsonl").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(PromptError, match=r"deep\.jsonl:1: Invalid JSON"):
        load_conversations(tmp_path / "deep.jsonl")
