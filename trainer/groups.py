"""From logged episodes and their rewards to groups with advantages, in one Parquet file.

The episodes of a log do not change, so neither do their advantages: they are computed here once, over groups
of any sizes, and stored as columns. What cannot be used is left out and counted by its cause.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from agent.log import iter_log
from trainer.errors import GroupError
from trainer.ifpo import Baseline, Scale, ifpo_advantages, inverse_frequency_weights

if TYPE_CHECKING:
    import pyarrow

    from agent.episode import Episode
    from evaluation.rewards import Reward

SCHEMA_VERSION = 1
_METADATA = b"ascl"
_ROWS_AT_ONCE = 512  # rows held in memory while writing
# What must be equal in a group, or its episodes were not drawn from one distribution.
_ONE_SETTING = (
    "prompt",
    "model_requested",
    "policy_version",
    "rulebook_digest",
    "sampling_sent",
    "tool_schema_digest",
    "prompt_digest",
    "tool_mode",
)


class AdvantageSettings(BaseModel):
    """How advantages are computed; see `trainer.ifpo.ifpo_advantages`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    alpha: float = Field(default=1.0, ge=0)
    w_max: float = Field(default=4.0, gt=0)
    baseline: Baseline = "balanced"
    scale_rewards: Scale = "group"
    eps: float = Field(default=1e-4, ge=0)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made: how many episodes and groups, and what it left out by cause."""

    episodes: int
    groups: int
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Light:
    """What the advantages need of an episode, without its text."""

    id: str
    group: str
    mode: str
    reward: float
    setting: str


def prepare(
    log: Path, rewards: dict[str, Reward], out: Path, settings: AdvantageSettings | None = None
) -> Prepared:
    """Write `out` from a log and the rewards of its episodes. The log is read twice, never held in memory.

    Raises:
        agent.LogError: the log cannot be read.
        GroupError: nothing in it can be used; the causes are named.
    """
    settings = settings or AdvantageSettings()
    left_out: Counter[str] = Counter()
    usable = _without_lone_episodes(_one_setting_each(_usable(log, rewards, left_out), left_out), left_out)
    if not usable:
        causes = ", ".join(f"{cause}: {count}" for cause, count in sorted(left_out.items())) or "it is empty"
        raise GroupError(
            f"no episode in {log} can be used ({causes}): two scored episodes of one prompt are the least"
        )
    columns = _advantage_columns(usable, settings)
    prepared = Prepared(len(usable), len({light.group for light in usable}), dict(sorted(left_out.items())))
    about = {
        "schema_version": SCHEMA_VERSION,
        "settings": settings.model_dump(mode="json"),
        "episodes": prepared.episodes,
        "groups": prepared.groups,
        "left_out": prepared.left_out,
    }
    _write(log, out, columns, about)
    return prepared


def _usable(log: Path, rewards: dict[str, Reward], left_out: Counter[str]) -> list[_Light]:
    seen: set[str] = set()
    usable = []
    for episode in iter_log(log, lambda _: left_out.update(["line that is no episode"])):
        if cause := _unusable(episode, rewards.get(episode.id), seen):
            left_out[cause] += 1
            continue
        seen.add(episode.id)
        total = rewards[episode.id].total
        assert total is not None
        setting = json.dumps([getattr(episode, name) for name in _ONE_SETTING], sort_keys=True)
        usable.append(_Light(episode.id, episode.group_id, episode.mode, total, setting))
    return usable


def _unusable(episode: Episode, reward: Reward | None, seen: set[str]) -> str | None:
    """Why an episode is left out, or None."""
    if episode.stop_reason == "error":
        return "ended in an error"
    if episode.mode_forced:
        return "its mode was forced"
    if episode.id in seen:
        return "a second episode of that id"
    if reward is None:
        return "not scored"
    if reward.total is None:
        return f"no reward ({reward.excluded or 'null'})"
    return None


def _one_setting_each(episodes: list[_Light], left_out: Counter[str]) -> list[_Light]:
    """Groups whose episodes come from different checkpoints, rulebooks or settings are no groups."""
    settings: dict[str, set[str]] = {}
    for episode in episodes:
        settings.setdefault(episode.group, set()).add(episode.setting)
    kept = [episode for episode in episodes if len(settings[episode.group]) == 1]
    if len(kept) < len(episodes):
        left_out["its group mixes checkpoints, rulebooks or settings"] += len(episodes) - len(kept)
    return kept


def _without_lone_episodes(episodes: list[_Light], left_out: Counter[str]) -> list[_Light]:
    size = Counter(episode.group for episode in episodes)
    kept = [episode for episode in episodes if size[episode.group] > 1]
    if len(kept) < len(episodes):
        left_out["alone in its group"] += len(episodes) - len(kept)
    return kept


def _advantage_columns(episodes: list[_Light], settings: AdvantageSettings) -> dict[str, dict[str, float]]:
    """Reward, weight and both methods' advantages, by episode id."""
    rewards = np.array([episode.reward for episode in episodes])
    modes = np.array([episode.mode for episode in episodes])
    groups = np.array([episode.group for episode in episodes])
    options = settings.model_dump()
    columns = {
        "reward": rewards,
        "weight": inverse_frequency_weights(modes, groups, alpha=settings.alpha, w_max=settings.w_max),
        "advantage_ifpo": ifpo_advantages(rewards, modes, groups, **options),
        "advantage_grpo": ifpo_advantages(rewards, modes, groups, **(options | {"alpha": 0.0})),
    }
    return {
        episode.id: {name: float(column[index]) for name, column in columns.items()}
        for index, episode in enumerate(episodes)
    }


def schema() -> pyarrow.Schema:
    """The columns of a prepared file. Conversations and tools are JSON text: their form is not fixed."""
    import pyarrow

    text, number = pyarrow.string(), pyarrow.float64()
    return pyarrow.schema(
        {
            "episode_id": text,
            "group_id": text,
            "prompt_id": text,
            "kind": text,  # null when unknown
            "mode": text,
            "reward": number,
            "weight": number,
            "advantage_ifpo": number,
            "advantage_grpo": number,
            "policy_version": text,
            "temperature": number,  # as sent; null when the endpoint's default was used
            "failed_consultations": pyarrow.int32(),  # calls that got no verdict
            "messages": text,
            "tools": text,
            "turns": text,  # finish reasons, token ids and log-probabilities; null in text-only logs
        }
    )


def _row(episode: Episode, numbers: dict[str, float]) -> dict[str, Any]:
    turns = [
        turn.model_dump(include={"finish_reason", "prompt_token_ids", "token_ids", "logprobs"})
        for turn in episode.turns
    ]
    return {
        "episode_id": episode.id,
        "group_id": episode.group_id,
        "prompt_id": episode.prompt_id,
        "kind": episode.kind,
        "mode": episode.mode,
        **numbers,
        "policy_version": episode.policy_version,
        "temperature": episode.sampling_sent.get("temperature"),
        "failed_consultations": sum(c.error is not None for c in episode.consultations),
        "messages": json.dumps(episode.messages, ensure_ascii=False),
        "tools": json.dumps(episode.tools, ensure_ascii=False),
        "turns": json.dumps(turns),
    }


def _write(log: Path, out: Path, columns: dict[str, dict[str, float]], about: dict[str, Any]) -> None:
    import pyarrow
    import pyarrow.parquet

    with _replacing(out) as target:
        described = schema().with_metadata({_METADATA: json.dumps(about).encode()})
        with pyarrow.parquet.ParquetWriter(target, described, compression="zstd") as writer:
            for rows in _batches(log, dict(columns)):
                writer.write_table(pyarrow.Table.from_pylist(rows, schema=described))


def _batches(log: Path, columns: dict[str, dict[str, float]]) -> Iterator[list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    for episode in iter_log(log):
        if (numbers := columns.pop(episode.id, None)) is None:
            continue
        rows.append(_row(episode, numbers))
        if len(rows) == _ROWS_AT_ONCE:
            yield rows
            rows = []
    if rows:
        yield rows


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends well, and nothing when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    try:
        yield Path(name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def read_groups(
    path: Path, columns: Iterable[str] | None = None
) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """The columns of a prepared file as lists, and what it says about itself.

    Raises:
        GroupError: there is no such file, or `prepare` did not write it.
    """
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        raise GroupError(
            f"there is no file of groups at '{path}': write it with "
            f"`ascl-train prepare LOG REWARDS --out {path}`"
        )
    try:
        table = pyarrow.parquet.read_table(path, columns=list(columns) if columns is not None else None)
        about = json.loads((table.schema.metadata or {})[_METADATA])
    except (pyarrow.ArrowException, KeyError, ValueError):
        raise GroupError(f"'{path}' was not written by `ascl-train prepare`: prepare the log again") from None
    if about.get("schema_version") != SCHEMA_VERSION:
        raise GroupError(
            f"'{path}' has the format {about.get('schema_version')}, but this version reads "
            f"{SCHEMA_VERSION}: prepare the log again"
        )
    return table.to_pydict(), about
