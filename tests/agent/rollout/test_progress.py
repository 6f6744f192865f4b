"""The progress of a run without a terminal."""

import time

import pytest

from agent.rollout import ProgressView
from tests.fakes.episodes.log import make_episode


def test_lines_with_counts_appear_although_no_episode_finishes(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressView(trace=False, interval=0.02) as view:
        time.sleep(0.06)  # nothing is known yet
        view.update(2, 8, None)
        time.sleep(0.1)
        view.update(3, 8, make_episode())
        time.sleep(0.1)
        view.update(4, 8, make_episode())
        time.sleep(0.1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "ascl-agent: 2 of 8 episodes after 0 s"
    assert "ascl-agent: 3 of 8 episodes (1 direct) after 0 s" in lines  # too few for an estimate
    assert lines[-1].startswith("ascl-agent: 4 of 8 episodes (2 direct) after 0 s, about ")
    assert lines[-1].endswith(" s left")
    time.sleep(0.06)
    assert capsys.readouterr().err == ""  # the thread ends with the run
