"""Fixtures that make episodes and write them to a log."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.episode import Episode
from tests.fakes.episodes import log

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def episode() -> MakeEpisode:
    return log.make_episode


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[[str, list[Episode]], Path]:
    def write(name: str, episodes: list[Episode]) -> Path:
        return log.write_log(tmp_path / name, episodes)

    return write
