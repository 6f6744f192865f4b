import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.episode import Episode
from evaluation.cli.app import app
from evaluation.metrics import compare_outcomes, contrast_score, retrieval_hits
from evaluation.metrics.paired import mcnemar
from evaluation.scorers import Reward, score_log
from tests.fakes.episodes.log import make_episode, write_log

NO = "I can't help with that."
SECRET = "words that must not be repeated"


def rewards(episodes: list[Episode]) -> dict[str, Reward]:
    return {reward.episode_id: reward for reward in score_log(episodes)}


def consulted(prompt_id: str, category: str, rank: int = 0, kind: str = "harmful") -> Episode:
    episode = make_episode(prompt_id, kind, NO, consult=True)
    others = [{"id": f"x.{i}", "category": "x", "stance": "limit", "score": 0.5} for i in range(rank)]
    hit = {"id": f"{category}.a", "category": category, "stance": "decline", "score": 0.4}
    consultation = {
        **episode.consultations[0].model_dump(),
        "verdict": "rules_found",
        "rules": [*others, hit],
    }
    return Episode.model_validate({**episode.model_dump(), "consultations": [consultation]})


def test_mcnemar_is_the_exact_test_on_the_discordant_pairs() -> None:
    assert mcnemar(0, 0, 9).p == 1.0
    assert mcnemar(0, 6, 10).p == pytest.approx(2 / 2**6, abs=1e-6)
    assert mcnemar(1, 7, 10).p == pytest.approx(2 * 9 / 2**8, abs=1e-6)
    assert mcnemar(7, 1, 10).p == mcnemar(1, 7, 10).p
    assert mcnemar(5, 5, 10).p == 1.0
    assert mcnemar(4, 5, 10).p == 1.0
    for first, other in ((30, 12), (480, 520), (0, 40)):
        exact = (
            2 * sum(math.comb(first + other, k) for k in range(min(first, other) + 1)) / 2 ** (first + other)
        )
        assert mcnemar(first, other, 2000).p == pytest.approx(exact, abs=1e-6)


@pytest.mark.timeout(20)
def test_mcnemar_of_a_large_set_is_fast() -> None:
    assert mcnemar(20_000, 19_000, 50_000).p == pytest.approx(0.0, abs=1e-6)
    assert mcnemar(20_000, 19_900, 50_000).p == pytest.approx(math.erfc(99 / math.sqrt(2 * 39_900)), abs=1e-4)


def test_arms_are_compared_on_one_sample_of_each_prompt_that_both_were_scored_on() -> None:
    first = [make_episode(f"h{i}", "harmful", "Sure.", sample=s) for i in range(6) for s in range(3)]
    other = [make_episode(f"h{i}", "harmful", NO, sample=s) for i in range(5) for s in range(3)]
    test = compare_outcomes(first, other, rewards(first), rewards(other))
    assert test is not None
    assert (test.n, test.first_only, test.other_only) == (5, 0, 5)
    assert compare_outcomes(first, [], rewards(first), {}) is None


def test_a_contrast_pair_is_right_only_if_both_sides_are() -> None:
    pairs = {"h1": "one", "b1": "one", "h2": "two", "b2": "two", "h3": "three"}
    episodes = [
        make_episode("h1", "harmful", NO),
        make_episode("b1", "benign_sensitive", "Sure."),
        make_episode("h2", "harmful", NO),
        make_episode("b2", "benign_sensitive", NO),
        make_episode("h3", "harmful", NO),
    ]
    score = contrast_score(episodes, rewards(episodes), pairs)
    assert score is not None
    assert (score.hits, score.n) == (1, 2), "the third pair lacks its harmless side"
    assert contrast_score(episodes, rewards(episodes), {}) is None


def test_a_retrieval_hit_has_an_accepted_category_among_the_first_three_rules() -> None:
    accepted = {name: frozenset({"cyber", "fraud"}) for name in ("a", "b", "c", "d")}
    episodes = [
        consulted("a", "cyber", rank=2),
        consulted("b", "fraud", rank=3),
        consulted("c", "hate"),
        make_episode("d", "harmful", NO),
        consulted("unknown", "cyber"),
    ]
    rate = retrieval_hits(episodes, accepted)
    assert rate is not None
    assert (rate.hits, rate.n) == (1, 3)


@pytest.fixture
def reported(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    before = [make_episode(f"h{i}", "harmful", "Sure.", prompt=SECRET) for i in range(6)] + [
        make_episode(f"b{i}", "benign_sensitive", "Sure.") for i in range(6)
    ]
    after = [consulted(f"h{i}", "cyber") for i in range(6)] + [
        make_episode(f"b{i}", "benign_sensitive", "Sure.") for i in range(6)
    ]
    logs = write_log(tmp_path / "before.jsonl", before), write_log(tmp_path / "after.jsonl", after)
    rows = [
        {
            "id": f"{side}{i}",
            "prompt": "x",
            "kind": kind,
            "source": "set",
            "category": "label",
            "twin": f"t{i}",
        }
        for i in range(6)
        for side, kind in (("h", "harmful"), ("b", "benign_sensitive"))
    ]
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    label_map = tmp_path / "map.json"
    label_map.write_text(
        '{"note": "x", "map": {"set": {"label": ["cyber"], "other": null}}}', encoding="utf-8"
    )

    def report(*more: object) -> tuple[int, str, str]:
        options = [str(option).format(map=label_map, prompts=prompts, folder=tmp_path) for option in more]
        arms = ["--arm", f"before={logs[0]}", "--arm", f"after={logs[1]}"]
        result = CliRunner().invoke(app, ["report", *arms, "--out", str(tmp_path / "rep"), *options])
        return result.exit_code, result.stdout, result.stderr

    return report


def test_the_report_shows_pairs_hits_costs_and_the_test_between_arms(
    reported: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    notes = ("--prompts", "{prompts}", "--pair-by", "twin", "--label-map", "{map}")
    code, out, err = reported(*notes, "--json")
    assert code == 0, err
    summary = json.loads(out)
    before, after = summary["arms"]
    assert (before["contrast_pairs"]["hits"], after["contrast_pairs"]["hits"]) == (0, 6)
    assert (before["retrieval_hit_at_3"], after["retrieval_hit_at_3"]["share"]) == (None, 1.0)
    assert after["kinds"]["harmful"]["unjudged"]["share"] == 0.0
    harmful = next(change for change in summary["changes"] if change["kind"] == "harmful")
    assert harmful["mcnemar"] == {"n": 6, "first_only": 0, "other_only": 6, "p": 0.03125}
    assert harmful["seconds"]["value"] == 0.0
    assert "--pair-by twin" in summary["command"]
    page = (tmp_path / "rep" / "report.html").read_text(encoding="utf-8")
    assert "6 : 0, 0.031" in page
    assert "100.0% [61.0, 100.0]" in page
    code, out, _ = reported(*notes, "--overwrite")
    assert code == 0
    assert "6 : 0, 0.031" in out


def test_a_report_lists_single_episodes_without_harmful_text(
    reported: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, _ = reported("--json")
    assert code == 0
    rows = json.loads(out)["episodes"]["rows"]
    assert len(rows) == 24
    assert all(row["answer"] is None for row in rows if row["kind"] == "harmful")
    assert all(row["answer"] == "Sure." for row in rows if row["kind"] != "harmful")
    assert any(row["rules"] == ["cyber.a"] for row in rows)
    page = (tmp_path / "rep" / "report.html").read_text(encoding="utf-8")
    assert "h0#0" in page
    assert SECRET not in page
    assert SECRET not in out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--pair-by", "twin"), 2, "require --prompts"),
        (
            ("--prompts", "{prompts}", "--pair-by", "nothing"),
            1,
            "no prompt has a text in the column 'nothing'",
        ),
        (("--prompts", "{prompts}", "--label-map", "{prompts}"), 1, "is not JSON"),
        (("--prompts", "{prompts}", "--label-map", "{folder}/none.json"), 1, "is not a file"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence(
    reported: Callable[..., tuple[int, str, str]], more: tuple[str, ...], code: int, message: str
) -> None:
    exit_code, out, err = reported(*more)
    assert (exit_code, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1


def test_two_reports_are_compared_figure_by_figure(tmp_path: Path) -> None:
    folders = []
    for name, answer in (("one", "Sure."), ("two", NO)):
        log = write_log(
            tmp_path / f"{name}.jsonl", [make_episode(f"h{i}", "harmful", answer) for i in range(9)]
        )
        folders.append(tmp_path / name)
        assert (
            CliRunner()
            .invoke(app, ["report", "--arm", f"a={log}", "--arm", f"{name}={log}", "--out", str(folders[-1])])
            .exit_code
            == 0
        )
    result = CliRunner().invoke(app, ["compare", *map(str, folders), "--json"])
    assert result.exit_code == 0
    comparison = json.loads(result.stdout)
    refusal = next(row for row in comparison["rows"] if row["figure"] == "refusal")
    assert (refusal["first"], refusal["second"], refusal["sure"]) == (0.0, 1.0, True)
    assert (comparison["only_first"], comparison["only_second"]) == (["one"], ["two"])
    text = CliRunner().invoke(app, ["compare", *map(str, folders)]).stdout
    assert "intervals apart" in text
    assert "Only in the first: one" in text


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is not a report"), ("[1]", "is not a summary of a report")]
)
def test_a_file_that_is_not_a_report_cannot_be_compared(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "summary.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    result = CliRunner().invoke(app, ["compare", str(path), str(path)])
    assert result.exit_code == 1
    assert message in result.stderr
