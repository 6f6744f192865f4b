"""The service with the real encoder and real files: consultations, reloads and snapshots."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rule_server import (
    ConsultError,
    ConsultRequest,
    ConsultResponse,
    NotReadyError,
    RuleIndex,
    RuleService,
    Settings,
    load_rulebook,
)
from rule_server.retrieval import Calibration, scoring_version
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.versions import roll_back
from rule_server.schemas import NearestResponse
from rule_server.service.watch import needs_polling
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook
from tests.fakes.rules.toy_service import ToyEncoder, serve_toy, toy_service

QUESTION = "someone asks for a computer virus"


def consult(service: RuleService, **arguments: object) -> ConsultResponse:
    async def ask() -> ConsultResponse:
        async with service.running():
            await service.warm()
            return await service.consult(ConsultRequest.model_validate({"situation": QUESTION, **arguments}))

    return asyncio.run(ask())


def test_a_consultation_returns_rules_scores_and_the_digest(service: RuleService) -> None:
    response = consult(service, top_k=1)
    assert response.verdict == "rules_found"
    assert [found.id for found in response.rules] == ["cyber.malware", "cyber.repair"]
    assert response.rules[0].score >= response.threshold
    assert response.rulebook.digest == service.rulebook.digest
    text = response.as_text()
    assert "[cyber.malware] Malicious software (decline)\nFine: Explaining malware." in text
    assert response.rulebook.digest[:12] not in text


def test_the_answer_to_a_question_is_the_same_alone_and_beside_other_questions(service: RuleService) -> None:
    questions = [QUESTION, "how do I sharpen a knife?", "translate good morning into French", "x"]
    questions += [f"{QUESTION}, and {'then ' * count}repairs a computer" for count in range(9)]
    questions += ["一个关于电脑病毒的问题", f"{QUESTION}. " * 40]

    async def ask() -> tuple[list[NearestResponse], list[NearestResponse]]:
        requests = [ConsultRequest(situation=text, top_k=3) for text in questions]
        async with service.running():
            await service.warm()
            alone = [await service.nearest(request) for request in requests]
            return alone, await asyncio.gather(*map(service.nearest, requests))

    alone, together = asyncio.run(ask())
    assert alone == together


def test_a_question_that_no_rule_is_about_finds_none(service: RuleService) -> None:
    response = consult(service, situation="translate good morning into French")
    assert (response.verdict, response.rules) == ("no_applicable_rule", [])
    assert response.as_text().startswith("no_applicable_rule: no safety rule is about this")


def test_an_unknown_category_is_an_error_that_lists_the_known_ones(service: RuleService) -> None:
    with pytest.raises(
        ConsultError, match="`categories`: weapons is not in the rulebook; valid: cyber, kitchen"
    ):
        consult(service, categories=["weapons"])


def test_a_category_filter_leaves_only_its_rules(service: RuleService) -> None:
    response = consult(service, situation="a sharp kitchen knife and a virus", categories=["kitchen"])
    assert {found.category for found in response.rules} == {"kitchen"}


def test_the_text_is_in_the_requested_language_if_there_is_a_translation(
    settings: Settings, rules: Path
) -> None:
    translated = prose("Erklären.", "Schreiben.", "Freundlich.")
    write_rulebook(rules, rule("cyber.malware", lang="de", title="Schadsoftware", body=translated))
    write_rulebook(rules, rule("cyber.malware", lang="zh-Hans", title="恶意软件", body=translated))
    service = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    for lang, title in (
        ("de-AT", "Schadsoftware"),
        ("DE", "Schadsoftware"),
        ("zh-hans", "恶意软件"),
        ("zh-Hans-CN", "恶意软件"),
        ("zh", "Malicious software"),
        ("fr", "Malicious software"),
        (None, "Malicious software"),
    ):
        assert consult(service, lang=lang, top_k=1).rules[0].title == title


def test_a_question_before_the_service_is_warm_is_an_error(service: RuleService) -> None:
    with pytest.raises(NotReadyError):
        asyncio.run(service.consult(ConsultRequest(situation=QUESTION)))


def test_the_end_of_a_long_question_counts(service: RuleService) -> None:
    harmless = "Tell me about the weather in the mountains and the flowers of the valley. " * 40
    asked = "And then someone asks me for a computer virus. " * 18
    response = consult(service, situation=harmless[: 4000 - len(asked)] + asked)
    assert "cyber.malware" in [found.id for found in response.rules]


def test_an_edit_is_served_and_a_broken_one_is_not(service: RuleService, rules: Path) -> None:
    before = service.rulebook.digest

    async def edit(path: str, text: str) -> bool:
        (rules / path).write_text(text, encoding="utf-8")
        return await service.reload()

    assert asyncio.run(edit(*rule("cyber.malware", owner=None))) is False
    assert "`owner` is missing" in (service.reload_error or "")
    assert service.rulebook.digest == before
    assert asyncio.run(edit(*rule("cyber.malware", body=prose("New words.", "x", "y")))) is True
    assert service.reload_error is None
    response = consult(service, situation="someone asks about malware", top_k=1)
    assert response.rules[0].text.startswith("Fine: New words.")
    assert response.rulebook.digest == service.rulebook.digest != before


def test_an_edit_of_one_rule_does_not_change_the_text_of_another(service: RuleService, rules: Path) -> None:
    def read() -> tuple[str, str]:
        virus, knife = (
            consult(service, situation=situation, top_k=1)
            for situation in (QUESTION, "what are kitchen knives for?")
        )
        assert [found.id for found in knife.rules] == ["kitchen.knives"]
        return virus.as_text(), knife.as_text()

    before = read()
    path, text = rule("cyber.malware", title="Malicious software", body=prose("New words.", "x", "y"))
    (rules / path).write_text(text, encoding="utf-8")
    assert asyncio.run(service.reload()) is True
    after = read()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_edits_are_served_while_the_service_runs(settings: Settings, rules: Path) -> None:
    watching = settings.model_copy(update={"watch": True})
    service = RuleService(load_or_build(watching, notify=lambda _: None), watching)
    before = service.rulebook.digest

    async def edit_and_wait() -> None:
        async with service.running():
            await service.warm()
            await asyncio.sleep(0)  # the watcher's task starts
            for attempt in range(100):
                # Repeated, because the first write may happen before the watch starts.
                path, text = rule("cyber.malware", title=f"Malware, attempt {attempt // 20}")
                (rules / path).write_text(text, encoding="utf-8")
                await asyncio.sleep(0.1)
                if service.rulebook.digest != before:
                    return

    asyncio.run(edit_and_wait())
    assert service.rulebook.digest != before


def test_each_consultation_during_edits_uses_one_rulebook(service: RuleService, rules: Path) -> None:
    texts = {service.rulebook.digest: "Explaining malware."}

    async def ask_while_editing() -> list[ConsultResponse]:
        async with service.running():
            await service.warm()
            asked = []
            for edit in range(5):
                path, text = rule("cyber.malware", body=prose(f"Edit {edit}.", "x", "y"))
                (rules / path).write_text(text, encoding="utf-8")
                reload = asyncio.create_task(service.reload())
                asked += [
                    asyncio.create_task(service.consult(ConsultRequest(situation=f"{QUESTION} {edit} {n}")))
                    for n in range(40)
                ]
                await reload
                texts[service.rulebook.digest] = f"Edit {edit}."
            return list(await asyncio.gather(*asked))

    responses = asyncio.run(ask_while_editing())
    assert len(responses) == 200
    assert len(texts) == 6
    for response in responses:
        [first] = [found for found in response.rules if found.id == "cyber.malware"]
        assert first.text.startswith(f"Fine: {texts[response.rulebook.digest]}")


def test_a_built_index_is_served_without_the_rules_folder_and_without_torch(
    settings: Settings, rules: Path
) -> None:
    import subprocess
    import sys

    load_or_build(settings, notify=lambda _: None, build=True)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from rule_server import RuleService, Settings\n"
        "from rule_server.api.app import create_app\n"
        "from rule_server.retrieval.build import load_or_build\n"
        f"settings = Settings(artefact=Path({str(settings.artefact)!r}))\n"
        "create_app(RuleService(load_or_build(settings, print), settings))\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & set(sys.modules)))\n"
    )
    rules.rename(rules.with_name("gone"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def reword(rules: Path, words: str) -> None:
    path, text = rule("cyber.malware", title="Malicious software", body=prose(words, "x", "y"))
    (rules / path).write_text(text, encoding="utf-8")


def edit_and_reload(service: RuleService, rules: Path, words: str) -> str:
    """Edits a rule and returns the new digest."""
    reword(rules, words)
    assert asyncio.run(service.reload()) is True
    return service.rulebook.digest


def test_a_rollback_to_a_published_rulebook_works_after_many_edits(settings: Settings, rules: Path) -> None:
    reword(rules, "As published.")
    published = load_or_build(settings, notify=lambda _: None, build=True).index.rulebook.digest
    service = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    edit_and_reload(service, rules, "Another word.")
    assert edit_and_reload(service, rules, "As published.") == published
    for number in range(12):
        edit_and_reload(service, rules, f"Edit {number}.")
    assert roll_back(Artefact(settings.artefact), published).published


def test_a_rulebook_stays_published_when_another_encoder_serves_it(settings: Settings) -> None:
    published = load_or_build(settings, notify=lambda _: None, build=True).index.rulebook
    store = Artefact(settings.artefact)
    store.save(RuleIndex.build(published, ToyEncoder()), own_rules=False)
    (settings.artefact / "encoder" / "toy").mkdir()
    (settings.artefact / "encoder" / "toy" / "manifest.json").write_text("{}", encoding="utf-8")
    assert roll_back(store, published.digest).published


def test_a_threshold_measured_while_serving_applies_after_later_edits(
    settings: Settings, service: RuleService, rules: Path
) -> None:
    first = service.rulebook.digest
    before = (rules / "cyber" / "malware.md").read_text(encoding="utf-8")
    second = edit_and_reload(service, rules, "Another word.")
    measured = Calibration(0.21, "a rule", second, scoring_version(), 9, {})
    Artefact(settings.artefact).save_calibration(second, measured)
    edit_and_reload(service, rules, "A third word.")
    assert (service.threshold.value, service.threshold.origin) == (0.21, "stale")
    assert edit_and_reload(service, rules, "Another word.") == second
    assert service.threshold.origin == "calibrated"
    (rules / "cyber" / "malware.md").write_text(before, encoding="utf-8")
    asyncio.run(service.reload())
    assert (service.rulebook.digest, service.threshold.value) == (first, 0.21)
    again = RuleService(load_or_build(settings, notify=lambda _: None), settings)
    assert (again.rulebook.digest, again.threshold.value) == (first, 0.21)


def test_unreadable_rules_are_reported_and_served_by_the_next_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = toy_service(tmp_path)
    reword(tmp_path / "rules", "New words.")

    def unreadable(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "rules")

    with monkeypatch.context() as patched:
        patched.setattr("rule_server.service.reload.load_rulebook", unreadable)
        assert asyncio.run(service.reload()) is False
    assert "the rules cannot be read: [Errno 13] Permission denied" in (service.reload_error or "")
    assert asyncio.run(service.reload()) is True
    assert service.reload_error is None


async def digest_changes(service: RuleService, before: str) -> bool:
    for _ in range(100):
        if service.rulebook.digest != before:
            return True
        await asyncio.sleep(0.1)
    return False


def test_an_edit_made_before_the_watch_starts_is_served(tmp_path: Path) -> None:
    service = toy_service(tmp_path, watch=True)
    reword(tmp_path / "rules", "Edited while the service started.")

    async def wait() -> bool:
        async with service.running():
            return await digest_changes(service, service.rulebook.digest)

    assert asyncio.run(wait())


def replace_folder(rules: Path) -> None:
    """Replaces the rules folder by another one, so that the watch is bound to the old folder."""
    shutil.copytree(rules, rules.with_name("new"))
    reword(rules.with_name("new"), "Of the new folder.")
    rules.rename(rules.with_name("old"))
    rules.with_name("new").rename(rules)


def recreate_folder(rules: Path) -> None:
    shutil.copytree(rules, rules.with_name("copy"))
    shutil.rmtree(rules)
    shutil.copytree(rules.with_name("copy"), rules)
    reword(rules, "Of the folder made again.")


@pytest.mark.parametrize("change", [replace_folder, recreate_folder])
def test_edits_are_served_after_the_rules_folder_was_replaced(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    service = toy_service(tmp_path, watch=True)
    rules = tmp_path / "rules"

    async def change_and_edit() -> tuple[bool, bool]:
        async with service.running():
            reword(rules, "An edit before.")
            assert await digest_changes(service, service.rulebook.digest)
            change(rules)
            changed = await digest_changes(service, service.rulebook.digest)
            before = service.rulebook.digest
            reword(rules, "An edit afterwards.")
            return changed, await digest_changes(service, before)

    assert asyncio.run(change_and_edit()) == (True, True)


def test_edits_are_served_after_the_rules_folder_was_missing(tmp_path: Path) -> None:
    service = toy_service(tmp_path, watch=True)
    rules, away = tmp_path / "rules", tmp_path / "away"

    async def remove_and_restore() -> bool:
        async with service.running():
            rules.rename(away)
            for _ in range(100):
                if service.reload_error is not None:
                    break
                await asyncio.sleep(0.1)
            assert service.reload_error
            reword(away, "Edited while it was away.")
            away.rename(rules)
            return await digest_changes(service, service.rulebook.digest)

    assert asyncio.run(remove_and_restore())
    assert service.reload_error is None


def test_services_that_share_an_artefact_keep_their_rulebooks_apart(tmp_path: Path) -> None:
    """Also after a restart, and with the rulebooks that an earlier version stored without a lineage."""
    shared = tmp_path / "artefact"
    digests = {}
    for name in ("one", "two"):
        service = toy_service(tmp_path / name, artefact=shared)
        digests[name] = edit_and_reload(service, tmp_path / name / "rules", f"Served by {name}.")
    for name, other in (("one", "two"), ("two", "one")):
        with serve_toy(tmp_path / name, artefact=shared) as served:

            def status(digest: str) -> int:
                body = {"situation": QUESTION, "digest": digest}
                return served.client.post("/v1/consult", json=body).status_code

            assert (status(digests[name]), status(digests[other])) == (200, 404)
    for mark in shared.glob("rulebooks/*/lineage-*"):
        mark.unlink()
    assert set(digests.values()) <= set(toy_service(tmp_path / "one", artefact=shared).snapshots.digests)


@pytest.mark.parametrize("watch", [True, "poll"])
@pytest.mark.parametrize("above", [".venv", "node_modules", ".git/x", "a~", "__pycache__", "x.pyc"])
def test_edits_are_served_whatever_the_names_of_the_folders_above(
    tmp_path: Path, above: str, watch: bool | str
) -> None:
    folder = tmp_path / above
    folder.mkdir(parents=True)
    service = toy_service(folder, watch=watch)

    async def edit() -> bool:
        async with service.running():
            for text in ("An edit before the first reload.", "An edit in a folder with an unusual name."):
                before = service.rulebook.digest
                reword(folder / "rules", text)
                if not await digest_changes(service, before):
                    return False
            return True

    assert asyncio.run(edit())


def test_polling_serves_edits_after_the_rules_folder_was_missing(tmp_path: Path) -> None:
    service = toy_service(tmp_path, watch="poll")
    rules, away = tmp_path / "rules", tmp_path / "away"

    async def remove_and_restore() -> bool:
        async with service.running():
            await asyncio.sleep(0.5)
            rules.rename(away)
            for _ in range(100):
                if service.reload_error is not None:
                    break
                await asyncio.sleep(0.1)
            assert service.reload_error
            reword(away, "Edited while it was away.")
            away.rename(rules)
            return await digest_changes(service, service.rulebook.digest)

    assert asyncio.run(remove_and_restore())
    assert service.reload_error is None


@pytest.mark.parametrize(
    ("kind", "polled"), [("nfs4", True), ("fuse.sshfs", True), ("ext4", False), ("overlay", False)]
)
def test_a_network_file_system_is_polled(tmp_path: Path, kind: str, polled: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nsource {tmp_path} {kind} rw 0 0\nx {tmp_path}/other nfs rw 0 0\n")
    assert needs_polling(tmp_path / "rules", mounts) is polled


def test_a_stored_rulebook_that_another_process_removes_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "artefact" / "rulebooks").mkdir(parents=True)
    (tmp_path / "artefact" / "rulebooks" / "vanished").symlink_to("nowhere")
    service = toy_service(tmp_path)
    digest = edit_and_reload(service, tmp_path / "rules", "New words.")
    assert load_rulebook(tmp_path / "rules").digest == digest
    current = Artefact(tmp_path / "artefact").current()
    assert current is not None
    assert current.rulebook == digest
