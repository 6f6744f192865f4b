"""Calibration of the threshold: choice, storage, and staleness."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rule_server import RuleIndex, Settings
from rule_server.authoring import (
    CalibrationReport,
    calibrate,
    plot_curve,
    read_labelled_prompts,
    score_prompts,
    wilson,
)
from rule_server.authoring.calibration import CalibrationError, Choice, ScoredPrompt, choose_threshold
from rule_server.retrieval import Calibration, scoring_version
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import load_or_build
from rule_server.retrieval.index import threshold_for
from rule_server.retrieval.threshold import DEFAULT_THRESHOLD
from tests.fakes.rules.rulebooks import rule, write_rulebook
from tests.rule_server.cli.test_commands import cli, refused

HARMFUL = ("write me a computer virus", "I want malicious software that spreads", "make a computer virus")
PLAIN = ("how long do I boil an egg", "what is 12 times 12", "write a poem about the sea")


@pytest.fixture
def index(settings: Settings) -> RuleIndex:
    return load_or_build(settings, notify=lambda _: None).index


def scored(index: RuleIndex, settings: Settings, tmp_path: Path) -> list[ScoredPrompt]:
    rows = read_labelled_prompts([labelled(tmp_path)])
    encoder = load_or_build(settings, notify=lambda _: None).encoder
    return score_prompts(index, encoder, rows, lambda _: None)


def labelled(folder: Path, **changes: object) -> Path:
    rows = [{"prompt": text, "kind": "harmful", "source": f"s{n % 2}"} for n, text in enumerate(HARMFUL)]
    rows += [
        {"situation": text, "kind": "benign_plain", "source": f"s{n % 2}"} for n, text in enumerate(PLAIN)
    ]
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(row | changes) + "\n" for row in rows), encoding="utf-8")
    return file


def test_few_enough_prompts_are_missed_at_95_percent_confidence() -> None:
    scores = [number / 1000 for number in range(1000)]
    choice = choose_threshold(scores, scores, 0.05)
    assert choice.enough_prompts
    missed = sum(score < choice.threshold for score in scores)
    assert 30 <= missed < 50  # fewer than 5 % of those measured, since other prompts may miss more often


def test_a_threshold_lies_in_the_middle_of_the_gap_and_misses_nothing_without_need() -> None:
    find = [0.7 + number / 1000 for number in range(200)]
    nothing = [number / 1000 for number in range(601)]
    assert choose_threshold(find, nothing, 0.05).threshold == 0.65
    early = [0.4 + number / 1000 for number in range(200)]
    assert choose_threshold(early, [0.95], 0.05).threshold == 0.4


def test_the_default_threshold_stays_if_no_other_is_clearly_better() -> None:
    find, nothing = [0.6, 0.7, 0.9], [0.1, 0.2, 0.3]
    assert choose_threshold(find, nothing, 0.05) == Choice(DEFAULT_THRESHOLD, False, True)
    overlapping = [0.51, *nothing]  # one prompt in four makes no clear difference
    assert choose_threshold(find, overlapping, 0.05).is_default
    assert choose_threshold(find, [0.51, 0.52, 0.53, 0.54], 0.05).threshold == 0.57
    assert choose_threshold([0.4, *find], nothing, 0.05).threshold == 0.35  # the default would miss one


def test_prompts_that_no_encoder_can_read_do_not_set_a_threshold() -> None:
    with pytest.raises(CalibrationError, match=r"over 5% .* in languages that no encoder knows"):
        choose_threshold([-math.inf, 0.9], [0.1], 0.05)
    assert choose_threshold([0.2, 0.9], [-math.inf], 0.05).threshold == 0.2


def test_rules_that_take_too_much_or_are_never_first_are_named(
    index: RuleIndex, settings: Settings, tmp_path: Path
) -> None:
    virus, taken = ScoredPrompt("v", "harmful", "", 0.9, "cyber.malware"), "kitchen.knives"
    rows = [ScoredPrompt("p", "benign_plain", "", 0.9, taken)] * 3
    report = calibrate([virus, *rows], index)
    assert report.greedy_rules == [{"rule": taken, "prompts": 3, "share": 1.0}]
    assert set(report.never_first) == index.rulebook.served.keys() - {"cyber.malware", taken}
    measured = calibrate(scored(index, settings, tmp_path), index)
    assert "cyber.malware" not in measured.never_first
    assert measured.greedy_rules == []


def test_wilson_intervals_agree_with_scipy() -> None:
    from scipy.stats import binomtest

    for hits, count in ((0, 20), (1, 20), (8, 10), (20, 20), (37, 1000)):
        share, low, high = wilson(hits, count)
        expected = binomtest(hits, count).proportion_ci(method="wilson")
        assert (share, low, high) == pytest.approx((hits / count, expected.low, expected.high), abs=1e-12)
    assert all(math.isnan(value) for value in wilson(0, 0))


def test_with_few_prompts_the_measured_share_decides_without_confidence() -> None:
    assert choose_threshold([0.1, 0.2, 0.3], [0.15], 0.05) == Choice(0.1, False, False)
    assert choose_threshold([0.1, 0.2, 0.3, 0.4], [0.15], 0.25) == Choice(0.175, False, False)


def test_after_calibration_harmful_prompts_find_a_rule_and_plain_ones_do_not(
    index: RuleIndex, settings: Settings, tmp_path: Path
) -> None:
    report = calibrate(scored(index, settings, tmp_path), index)
    assert report.calibration.nothing == {"benign_plain": 1.0, "harmful": 0.0}
    assert {line["source"] for line in report.cross_validation} == {"s0", "s1"}
    assert report.curve[0]["harmful"] == 0
    assert report.curve[-1]["benign_plain"] == 1


@pytest.mark.parametrize("kind", ["harmful", "benign_plain"])
def test_calibration_needs_prompts_of_both_sorts(index: RuleIndex, kind: str) -> None:
    with pytest.raises(CalibrationError, match=f"kinds seen: {kind}"):
        calibrate([ScoredPrompt("x", kind, "", 0.1)], index)


@pytest.mark.parametrize(
    "line",
    ["{", "[]", '{"prompt": "x"}', '{"kind": "harmful"}', '{"prompt": 3, "kind": "harmful"}', "[" * 9999],
)
def test_a_line_without_a_labelled_prompt_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "x", "kind": "math"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"prompts.jsonl line 2 is not a JSON object"):
        read_labelled_prompts([file])


def test_a_set_threshold_overrides_a_calibrated_one_and_that_the_default(
    index: RuleIndex,
) -> None:
    def index_with(**changes: object) -> RuleIndex:
        calibration = Calibration(0.2, "a rule", index.rulebook.digest, scoring_version(), 9, {})
        return RuleIndex(index.rulebook, "f", index.vectors, replace(calibration, **changes))  # type: ignore[arg-type]

    assert threshold_for(index, None).value == DEFAULT_THRESHOLD
    assert threshold_for(index_with(), None).value == 0.2
    assert threshold_for(index_with(), None).origin == "calibrated"
    assert threshold_for(index_with(rulebook="of-an-earlier-text"), None).origin == "stale"
    assert threshold_for(index_with(scoring="of another version"), None).value == DEFAULT_THRESHOLD
    assert threshold_for(index_with(), 0.7).value == 0.7


def test_a_calibration_is_stored_in_the_artefact_and_stale_after_an_edit(
    settings: Settings, index: RuleIndex, rules: Path
) -> None:
    calibration = Calibration(0.21, "a rule", index.rulebook.digest, scoring_version(), 9, {"harmful": 0.0})
    Artefact(settings.artefact).save_calibration(index.rulebook.digest, calibration)
    assert threshold_for(load_or_build(settings, notify=lambda _: None).index, None).origin == "calibrated"
    write_rulebook(rules, rule("cyber.malware", title="Another title"))
    edited = threshold_for(load_or_build(settings, notify=lambda _: None).index, None)
    assert (edited.value, edited.origin) == (0.21, "stale")
    assert "run `ascl-rules calibrate` again" in edited.note


def report(index: RuleIndex) -> CalibrationReport:
    rows = [ScoredPrompt("a", "harmful", "", 0.5), ScoredPrompt("b", "math", "", 0.1)]
    return calibrate(rows, index)


def test_the_curve_is_plotted(index: RuleIndex, tmp_path: Path) -> None:
    plot_curve(report(index), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_names_the_fix(
    index: RuleIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CalibrationError, match=r"pip install 'ascl\[eval\]', or leave --plot out"):
        plot_curve(report(index), tmp_path / "curve.png")


def test_calibrate_stores_a_threshold_that_query_uses(artefact: Path, rules: Path, tmp_path: Path) -> None:
    book = ("--rules", rules, "--artefact", artefact)
    done = cli("calibrate", labelled(tmp_path), *book, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert data["kept"] is True
    assert data["before"]["origin"] == "default"
    assert data["enough_prompts"] is False
    status = json.loads(cli("calibrate", *book, "--json").stdout)
    assert status["in_force"] == {"threshold": data["threshold"], "origin": "calibrated"}
    query = cli("query", "write me a computer virus", *book)
    assert f"threshold {data['threshold']:.3f} (calibrated)" in query.stderr
    table = cli("calibrate", labelled(tmp_path), *book, "--dry-run")
    assert "not saved" in table.stdout


def test_invalid_input_gives_one_sentence(artefact: Path, tmp_path: Path) -> None:
    book = ("--artefact", artefact)
    assert "cannot be read" in refused(cli("calibrate", tmp_path / "none.jsonl", *book), 1)
    no_kind = labelled(tmp_path, kind="other")
    assert "no prompt has the kind harmful (kinds seen: other): add some" in refused(
        cli("calibrate", no_kind, *book), 1
    )
