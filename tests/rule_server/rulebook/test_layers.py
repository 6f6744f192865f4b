"""Layers of rules folders: added, replaced and retired rules, and their problems."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rule_server import RulebookError, RuleService, Settings, load_rulebook
from rule_server.retrieval.build import load_or_build
from rule_server.rulebook import resolve_layers
from rule_server.rulebook.loader import read_rulebook
from rule_server.settings import load_settings, packaged_rules
from tests.fakes.rules.rulebooks import prose, rule, write_rulebook


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_rulebook(
        tmp_path / "base",
        rule("cyber.malware"),
        rule("cyber.malware", lang="de", title="Schadsoftware"),
        rule("cyber.repair", stance="answer"),
        name="base-rules",
    )


def overlay(folder: Path, *rules: tuple[str, str], manifest: str = "") -> Path:
    """Writes a rules folder without _category.md files."""
    for path, text in rules:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    (folder / "rulebook.yaml").write_text(f"name: mine\nversion: 2.0.0\n{manifest}", encoding="utf-8")
    return folder


def problems(*folders: Path) -> list[str]:
    return [str(problem) for problem in read_rulebook(folders)[1]]


def test_a_later_folder_adds_and_replaces_rules_and_sets_the_name(base: Path, tmp_path: Path) -> None:
    mine = overlay(
        tmp_path / "mine", rule("cyber.malware", title="Our word on malware"), rule("cyber.phishing")
    )
    book = load_rulebook([base, mine])
    assert (book.name, book.version) == ("mine", "2.0.0")
    assert list(book.served) == ["cyber.malware", "cyber.phishing", "cyber.repair"]
    assert book.served["cyber.malware"].title == "Our word on malware"
    assert book.digest not in (load_rulebook(base).digest, load_rulebook([mine, base]).digest)


def test_a_replaced_rule_loses_its_old_translations(base: Path, tmp_path: Path) -> None:
    assert ("cyber.malware", "de") in load_rulebook(base).translations
    mine = overlay(tmp_path / "mine", rule("cyber.malware", title="Our word on malware"))
    assert load_rulebook([base, mine]).translations == {}
    path, text = rule("cyber.repair", lang="de", title="Reparatur")
    (mine / path).write_text(text, encoding="utf-8")
    assert load_rulebook([base, mine]).translations["cyber.repair", "de"].title == "Reparatur"


def test_a_retired_rule_is_not_served_and_its_id_stays_reserved(base: Path, tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", manifest="retire: [cyber.malware]\n")
    book = load_rulebook([base, mine])
    assert list(book.served) == ["cyber.repair"]
    assert {(r.id, r.status) for r in book.rules} == {
        ("cyber.malware", "retired"),
        ("cyber.repair", "active"),
    }


def test_an_invalid_retirement_is_reported_with_folder_and_fix(base: Path, tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.x"), manifest="retire: [cyber.nothing, cyber.x]\n")
    assert problems(base, mine) == [
        "mine/rulebook.yaml: `retire` names cyber.nothing, which no rulebook beneath contains; "
        "correct the id or remove it",
        "mine/rulebook.yaml: `retire` names cyber.x, which is in this folder itself; "
        "set `status: retired` in its file instead",
    ]


def test_problems_name_their_folder(base: Path, tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.x", owner=None), rule("garden.y"))
    write_rulebook(base, rule("cyber.repair", stance="never"))
    found = problems(base, mine)
    assert [line.partition(":")[0] for line in found] == [
        "base/cyber/repair.md",
        "mine/cyber/x.md",
        "mine/garden/_category.md",
    ]
    with pytest.raises(RulebookError, match=r"^base/cyber/repair\.md: .* \(and 2 more"):
        load_rulebook([base, mine])


def test_an_overlay_without_extends_gets_a_hint_to_extend(tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.x"))
    assert "(or `extends: ascl-core` in rulebook.yaml)" in problems(mine)[0]


def test_extends_puts_the_packaged_rules_beneath(tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.our-systems"), manifest="extends: ascl-core\n")
    ours = load_rulebook(packaged_rules())
    book = load_rulebook(mine)
    assert resolve_layers(mine) == (packaged_rules(), mine)
    assert set(book.served) == set(ours.served) | {"cyber.our-systems"}
    assert book.name == "mine"
    assert resolve_layers([packaged_rules(), mine]) == (packaged_rules(), mine)


def test_extends_accepts_only_the_packaged_rulebook(tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.x"), manifest="extends: another\n")
    assert any(
        "`extends` cannot be 'another' (line 3); input should be 'ascl-core'" in line
        for line in problems(mine)
    )


def test_a_rulebook_with_only_drafts_cannot_be_served(tmp_path: Path) -> None:
    folder = write_rulebook(tmp_path / "rules", rule("cyber.a", status="draft"))
    [found] = problems(folder)
    assert found.startswith("rulebook.yaml: no rule is active; set `status: active` in one")


def test_the_environment_lists_folders_like_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASCL_RULES_DIR", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert load_settings().dir == (tmp_path / "a", tmp_path / "b")
    assert load_settings(dir=[tmp_path / "c"]).dir == (tmp_path / "c",)
    assert load_settings(dir=[]).dir == (tmp_path / "a", tmp_path / "b")


def test_edits_of_every_layer_are_served(base: Path, artefact: Path, tmp_path: Path) -> None:
    mine = overlay(tmp_path / "mine", rule("cyber.phishing"))
    settings = Settings(dir=(base, mine), artefact=artefact, watch=True)
    service = RuleService(load_or_build(settings, notify=lambda _: None), settings)

    async def edit_until_seen(folder: Path, id: str) -> bool:
        before = service.rulebook.digest
        for attempt in range(100):
            # Repeated, because the first write may happen before the watch starts.
            path, text = rule(id, stance="answer", body=prose(f"Attempt {attempt // 20}.", "x", "y"))
            (folder / path).write_text(text, encoding="utf-8")
            await asyncio.sleep(0.1)
            if service.rulebook.digest != before:
                return True
        return False

    async def edit_both() -> tuple[bool, bool]:
        async with service.running():
            return await edit_until_seen(base, "cyber.repair"), await edit_until_seen(mine, "cyber.phishing")

    assert asyncio.run(edit_both()) == (True, True)
    assert service.reload_error is None


def test_a_folder_that_starts_to_extend_the_packaged_rules_is_watched_with_them(
    artefact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = write_rulebook(tmp_path / "ours", rule("cyber.malware"), name="ascl-core")
    monkeypatch.setattr("rule_server.rulebook.loader.packaged_rules", lambda: ours)
    mine = write_rulebook(tmp_path / "mine", rule("garden.weeds", stance="answer"))
    settings = Settings(dir=(mine,), artefact=artefact, watch=True)
    service = RuleService(load_or_build(settings, notify=lambda _: None), settings)

    async def write_until(path: Path, text: str, id: str) -> bool:
        for attempt in range(100):
            # Repeated, because the first write may happen before the watch starts.
            path.write_text(text + "\n" * (attempt // 20), encoding="utf-8")
            await asyncio.sleep(0.1)
            if id in service.rulebook.served:
                return True
        return False

    async def extend_then_edit_ours() -> tuple[bool, bool]:
        async with service.running():
            manifest = "name: mine\nversion: 1.0.0\nextends: ascl-core\n"
            extended = await write_until(mine / "rulebook.yaml", manifest, "cyber.malware")
            path, text = rule("cyber.phishing")
            return extended, await write_until(ours / path, text, "cyber.phishing")

    assert asyncio.run(extend_then_edit_ours()) == (True, True)
