"""Episodes as the agent logs them, made by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.episode import Episode
from tests.fakes.episodes import episodes as made

MakeEpisode = Callable[..., Episode]


@pytest.fixture
def episode() -> MakeEpisode:
    return made.build


@pytest.fixture
def write_log(tmp_path: Path) -> Callable[[str, list[Episode]], Path]:
    def write(name: str, episodes: list[Episode]) -> Path:
        return made.write_log(tmp_path / name, episodes)

    return write
