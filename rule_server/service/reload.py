"""Live reload: rebuilds the index after an edit of the rules folders, and watches the folders for edits."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from rule_server.errors import RuleServiceError
from rule_server.observability import now
from rule_server.retrieval.artefact import Artefact
from rule_server.retrieval.build import rebuild
from rule_server.rulebook import load_rulebook, resolve_layers
from rule_server.schemas import RulebookRef
from rule_server.service import watch
from rule_server.service.changes import Changes, Rejected

if TYPE_CHECKING:
    from rule_server.observability.metrics import Metrics
    from rule_server.retrieval import Encoder
    from rule_server.retrieval.index import RuleIndex
    from rule_server.service.snapshots import Snapshots
    from rule_server.settings import Settings

log = logging.getLogger(__name__)


class Reloader:
    """Replaces the current snapshot after an edit. A rejected edit leaves the snapshot in place."""

    def __init__(
        self,
        folders: tuple[Path, ...],
        settings: Settings,
        encoder: Encoder,
        snapshots: Snapshots,
        metrics: Metrics,
    ) -> None:
        """`folders` are the named rules folders; without any, a reload changes nothing."""
        self.folders = folders
        self.changes = Changes.initial(snapshots.current.rulebook)
        """Result of the last reload, and the reason if the newest edit was rejected."""
        self.watch_error: str | None = None
        """Reason why the folders are not watched at present, though they should be."""
        problem = Artefact(settings.artefact).write_problem() if folders else None
        self.storage_error = f"edited rules are not stored: {problem}" if problem is not None else None
        """Reason why edits are served from memory only, so that a restart embeds them again."""
        self._settings = settings
        self._encoder = encoder
        self._snapshots = snapshots
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[bool]] = set()

    @property
    def tasks(self) -> list[asyncio.Task[bool]]:
        """Reloads in progress."""
        return list(self._tasks)

    async def reload(self) -> bool:
        """Serves the current content of the rules folders. Returns whether the rulebook changed.

        The reload finishes even if the caller stops waiting: embedding may take longer than a request may.
        """
        task = asyncio.create_task(self._reload())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _reload(self) -> bool:
        async with self._lock:
            current = self._snapshots.current
            try:
                index = await asyncio.to_thread(self._rebuild, current)
            except (RuleServiceError, OSError) as error:
                explained = isinstance(error, RuleServiceError)
                problem = str(error) if explained else f"the rules cannot be read: {error}"
                rejected = Rejected(at=now(), problem=problem)
                self.changes = self.changes.model_copy(update={"rejected": rejected})
                self._metrics.count_reload("rejected")
                log.warning("the edit is not served: %s", problem)
                return False
            if index is current:
                self.changes = self.changes.model_copy(update={"rejected": None})
                self._metrics.count_reload("unchanged")
                return False
            self._snapshots.push(index)
            self.changes = Changes.between(current.rulebook, index.rulebook)
            self._metrics.count_reload("served")
            self._metrics.set_rulebook(index.rulebook)
            log.info("now serving %s %s %s", *RulebookRef.of(index.rulebook).model_dump().values())
            return True

    def _rebuild(self, current: RuleIndex) -> RuleIndex:
        """Returns the new index, or `current` when the rulebook has not changed. Runs in a worker thread."""
        if not self.folders:
            return current
        rulebook = load_rulebook(self.folders, self._settings.variables)
        if rulebook.digest == current.rulebook.digest:
            return current
        artefact, own_rules = Artefact(self._settings.artefact), not self._settings.dir
        problems: list[str] = []
        index = rebuild(artefact, rulebook, self._encoder, current, own_rules, problems.append)
        artefact.add_lineage(rulebook.digest, self.folders)
        for problem in problems:
            log.warning(problem)
        self.storage_error = problems[-1] if problems else None
        return index

    async def watch(self) -> None:
        """Reloads after every edit, until cancelled. When watching fails, it tries again."""
        while True:
            try:
                await self._watch_layers()
            except Exception as error:  # raised by watchfiles: no inotify handles left, folder removed
                problem = f"edits are not followed: {error}"
                if problem != self.watch_error:
                    log.warning(problem)
                self.watch_error = problem
                await asyncio.sleep(watch.WATCH_CHECK_SECONDS)

    async def _watch_layers(self) -> None:
        """Reloads after every edit. Returns when the folders to watch have changed."""
        watched = resolve_layers(self.folders)  # an edit of rulebook.yaml may add the packaged rules
        async with aclosing(watch.edits(watched, poll=self._settings.watch == "poll")) as edits:
            async for _ in edits:
                self.watch_error = None
                await self.reload()
                if resolve_layers(self.folders) != watched:
                    return
