"""The floor in the decision benchmark: harmful prompts that are watched in a training move a multiplier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.learning.decision.experiment import watched
from benchmarks.learning.decision.experiment.runner import ExperimentSetup, RunFolders, settings_digest
from benchmarks.learning.decision.experiment.settings import Method, read_experiments
from benchmarks.learning.decision.main import REGISTERED, RESULTS
from benchmarks.learning.decision.report import collect, format_tables
from tests.benchmarks.test_decision import PROMPTS, experiment
from tests.fakes.models.tiny_llama import save_tiny_llama


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> RunFolders:
    """Folders with a tiny random model as cold start, and two sources of unseen prompts."""
    root = tmp_path_factory.mktemp("floor")
    save_tiny_llama(root / "cache" / "cold-start-mild" / "merged")
    (root / "cache" / "cold-start-mild" / "run.json").write_text("{}")
    (root / "data").mkdir()
    for source, kind in (("one", "harmful"), ("two", "benign_plain")):
        rows = [{"id": f"{source}-{i}", "prompt": text, "kind": kind} for i, text in enumerate(PROMPTS)]
        (root / "data" / f"{source}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunFolders(root / "results", root / "cache", root / "base", root / "data")


@pytest.fixture(scope="module")
def setup(folders: RunFolders) -> ExperimentSetup:
    """A setup that watches the harmful prompts that follow the two measured ones of each source."""
    tiny = experiment(updates=4)
    rewards = tiny.rewards | {"math": tiny.rewards["benign_plain"]}
    watching = tiny.model_copy(update={"watched_per_source": 2, "rewards": rewards})
    return ExperimentSetup(watching, "mild", folders)


def test_watched_prompts_are_harmful_and_neither_measured_nor_trained_on(setup: ExperimentSetup) -> None:
    sets = setup.sets
    assert {prompt.id.rpartition("-")[0] for prompt in sets.validation} == {"one"}
    assert len(sets.validation) == 2
    measured = {prompt.id for prompts in sets.unseen.values() for prompt in prompts}
    assert not measured & {prompt.id for prompt in sets.validation}


def test_the_multiplier_rises_below_the_floor_and_changes_the_training(setup: ExperimentSetup) -> None:
    both_modes = Method(forced_consult=2, forced_direct=2, multiplier_rate=5)
    without, unreached, trivial = (
        setup.run(both_modes.model_copy(update={"harmful_floor": floor}), seed=0)
        for floor in (None, 1.0, 0.0)
    )
    assert all("multiplier" not in update for update in without["updates"])
    expected = 1.0
    for update in unreached["updates"]:
        expected = min(10.0, expected + 5 * (1 - update["watched"]["harmful"]))
        assert update["multiplier"] == pytest.approx(expected, abs=1e-3)
        expected = update["multiplier"]
    assert expected > 2
    assert [update["multiplier"] for update in trivial["updates"]] == [1.0] * 4
    assert trivial["unseen"] == without["unseen"]
    assert unreached["unseen"] != without["unseen"]


def test_the_report_compares_the_last_quarter_of_the_watched_rates_with_the_floor() -> None:
    def run(rates: list[float], multipliers: list[float] | None = None) -> dict[str, Any]:
        line: dict[str, Any] = {"watched": rates}
        return line if multipliers is None else line | {"multiplier": multipliers}

    rows = watched.watched_rows(
        {
            "start": [{}],
            "grpo": [run([0.7] * 7 + [0.85]), run([0.7] * 6 + [0.9, 0.98])],
            "grpo-floor": [run([0.7] * 6 + [0.93, 0.97], [1.0] * 6 + [2.0, 3.0])],
        },
        0.95,
    )
    assert [row[0] for row in rows] == ["grpo", "grpo-floor"]
    assert rows[0][3:] == ["0.775 to 0.940", "1 of 2", "", ""]
    assert rows[1][2:] == ["0.950", "0.950 to 0.950", "1 of 1", "2.50", "3.00"]


def test_collected_runs_keep_watched_rates_and_the_multiplier(
    setup: ExperimentSetup, folders: RunFolders, tmp_path: Path
) -> None:
    experiment = setup.experiment
    common = {"experiment": "tiny", "start": "mild", "settings_sha256": settings_digest(experiment)}
    folder = tmp_path / "tiny" / "mild"
    folder.mkdir(parents=True)
    (folder / "start.json").write_text(json.dumps(common | setup.start()))
    result = setup.run(Method(harmful_floor=0.95), seed=0)
    (folder / "floor-00.json").write_text(json.dumps(common | {"name": "floor"} | result))
    lines = {line["method"]: line for line in collect(tmp_path)}
    assert "watched" not in lines["start"]
    assert len(lines["floor"]["watched"]) == len(lines["floor"]["multiplier"]) == 4
    assert "| floor | 1 |" in format_tables(list(lines.values()), {"tiny": experiment})


def test_the_settings_of_recorded_runs_are_those_that_are_registered() -> None:
    registered = read_experiments(REGISTERED)
    digests: dict[str, set[str]] = {}
    for line in map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines()):
        digests.setdefault(line["experiment"], set()).add(line["settings_sha256"])
    assert {name: settings_digest(registered[name]) for name in digests} == {
        name: next(iter(found)) for name, found in digests.items()
    }
