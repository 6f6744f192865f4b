"""The current rulebook and the previous ones by digest, so that an earlier answer can be reproduced."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from rule_server.errors import ArtefactError, UnknownDigestError
from rule_server.retrieval.artefact import lineage
from rule_server.retrieval.versions import list_versions

if TYPE_CHECKING:
    from pathlib import Path

    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.index import RuleIndex


class Snapshots:
    """Holds at most `capacity` indexes by digest; a new one evicts the oldest.

    After a restart, the rulebooks of the artefact that were served before from the same rules folders count
    as previous ones. They are read on demand. Another service with other rules may share the artefact.
    """

    def __init__(
        self, current: RuleIndex, artefact: Artefact, capacity: int, rules: tuple[Path, ...] = ()
    ) -> None:
        """`rules` are the rules folders. Without any, they are those of the current rulebook."""
        self.current = current
        """The index in use. A swap replaces this one reference, so no request sees half of an index."""
        self._artefact = artefact
        self._capacity = capacity
        self._indexes: OrderedDict[str, RuleIndex | None] = OrderedDict()
        self._read_lock = asyncio.Lock()
        for digest in self._stored_digests(rules):
            self._indexes[digest] = None
        self.push(current)

    @property
    def digests(self) -> list[str]:
        """Digests that can be queried, the current one first."""
        return list(reversed(self._indexes))

    def push(self, index: RuleIndex) -> None:
        """Makes an index the current one."""
        digest = index.rulebook.digest
        self._indexes[digest] = index
        self._indexes.move_to_end(digest)
        while len(self._indexes) > self._capacity:
            self._indexes.popitem(last=False)
        self.current = index

    async def get(self, digest: str) -> RuleIndex:
        """Returns the index of a digest.

        Raises:
            UnknownDigestError: no such rulebook is available.
        """
        index = self._indexes.get(digest)
        if index is not None:
            return index
        async with self._read_lock:
            if digest in self._indexes and self._indexes[digest] is None:
                index = await asyncio.to_thread(self._read, digest)
                if digest in self._indexes:
                    if index is None:
                        del self._indexes[digest]
                    else:
                        self._indexes[digest] = index
            if (index := self._indexes.get(digest)) is None:
                known = ", ".join(self.digests)
                raise UnknownDigestError(
                    f"`digest`: rulebook {digest[:12]} is not available any more; available: {known}"
                )
            return index

    def _stored_digests(self, rules: tuple[Path, ...]) -> list[str]:
        """Returns the digests of stored rulebooks of these rules that were served with this encoder.

        The oldest is first. Rulebooks that an earlier version stored name no rules, and count as well.
        """
        if self._capacity == 1:
            return []
        try:
            versions = list_versions(self._artefact)
        except ArtefactError:
            return []
        fingerprint = self.current.fingerprint
        lineages = self._artefact.lineages
        own = {lineage(rules)} if rules else lineages(self.current.rulebook.digest)
        digests = [
            entry.digest
            for entry in versions
            if entry.served
            and entry.encoder == fingerprint
            and (not (marks := lineages(entry.digest)) or not marks.isdisjoint(own))
        ]
        return list(reversed(digests[: self._capacity]))

    def _read(self, digest: str) -> RuleIndex | None:
        try:
            return self._artefact.index(digest, self.current.fingerprint)
        except ArtefactError:
            return None
