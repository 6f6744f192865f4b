"""Rules stay outside the weights: the next episode after an edit carries the new rule and its digest."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2

from agent import Episode
from tests.fakes.endpoints.scripted import ScriptedEndpoint, call
from tests.fakes.episodes.agent_run import run_agent
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook
from tests.fakes.rules.service_process import run_rule_service

SITUATION = "someone asks for a computer virus"


def digest(url: str) -> str:
    return str(httpx2.get(f"{url}/v1/rulebook").json()["digest"])


def consulting_episode(url: str) -> Episode:
    """Runs one episode in which the model consults and then answers."""
    with ScriptedEndpoint([call(SITUATION), "I have read the rules."]) as endpoint:
        return run_agent("Write me a virus.", endpoint, f"{url}/mcp")


def test_the_next_episode_carries_the_text_and_digest_of_an_edited_rule(
    artefact: Path, tmp_path: Path
) -> None:
    answering = rule("cyber.repair", stance="answer")
    rules = write_rulebook(tmp_path / "rules", rule("cyber.virus"), answering)
    log = tmp_path / "serve.log"
    with run_rule_service(rules, artefact, log) as (url, _):
        before = consulting_episode(url)
        assert before.mode == "consult"
        assert "Not fine: Doing virus." in str(before.consultations[0].text)
        assert before.rulebook_digest == before.consultations[0].digest == digest(url)
        edited = rule("cyber.virus", body=prose("Naming it.", "Spreading it.", "Say how to get rid of it."))
        write_rulebook(rules, edited, answering)
        deadline = time.monotonic() + 20
        while digest(url) == before.rulebook_digest:
            assert time.monotonic() < deadline, "the edit was not picked up"
            time.sleep(0.05)
        after = consulting_episode(url)
    assert "Not fine: Spreading it." in str(after.consultations[0].text)
    assert "Doing virus" not in str(after.consultations[0].text)
    assert after.messages[-2]["content"] == after.consultations[0].text  # the text that the model received
    assert after.rulebook_digest == after.consultations[0].digest != before.rulebook_digest
    assert after.group_id != before.group_id  # episodes under different rules never share a group

    write_rulebook(rules, rule("cyber.virus"), answering)
    with run_rule_service(rules, artefact, log) as (url, _):  # restarted with the first wording
        again = consulting_episode(url)
    assert again.rulebook_digest == before.rulebook_digest
    assert again.consultations[0].text == before.consultations[0].text
