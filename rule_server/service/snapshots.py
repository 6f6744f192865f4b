"""The present rulebook and the last ones before it, by digest, so that an answer can be had again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from rule_server.errors import ArtefactError, UnknownDigestError
from rule_server.retrieval.versions import list_versions

if TYPE_CHECKING:
    from rule_server.retrieval.artefact import Artefact
    from rule_server.retrieval.index import RuleIndex


class Snapshots:
    """Indexes by digest, at most `most` of them; the oldest goes when another comes.

    After a restart those that the artefact kept count as the earlier ones, if they were served; they are read
    when asked for.
    """

    def __init__(self, current: RuleIndex, artefact: Artefact, most: int) -> None:
        self.current = current
        """The index that is served; swapped as one reference, so that no request sees half of it."""
        self._artefact = artefact
        self._most = most
        self._held: OrderedDict[str, RuleIndex | None] = OrderedDict()
        self._reading = asyncio.Lock()
        for digest in self._kept_before():
            self._held[digest] = None
        self.push(current)

    @property
    def digests(self) -> list[str]:
        """Of all that can be asked, the present one first."""
        return list(reversed(self._held))

    def push(self, index: RuleIndex) -> None:
        """Serve this index from now on."""
        digest = index.rulebook.digest
        self._held[digest] = index
        self._held.move_to_end(digest)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        self.current = index

    async def get(self, digest: str) -> RuleIndex:
        """The index of a digest.

        Raises:
            UnknownDigestError: when it is not among those that are held.
        """
        index = self._held.get(digest)
        if index is not None:
            return index
        async with self._reading:
            if digest in self._held and self._held[digest] is None:
                index = await asyncio.to_thread(self._read, digest)
                if digest in self._held:
                    if index is None:
                        del self._held[digest]
                    else:
                        self._held[digest] = index
            if (index := self._held.get(digest)) is None:
                known = ", ".join(self.digests)
                raise UnknownDigestError(
                    f"`digest`: no rulebook {digest[:12]} is held any more; known: {known}"
                )
            return index

    def _kept_before(self) -> list[str]:
        """Digests of what was served and the artefact keeps for this encoder, the oldest first."""
        if self._most == 1:
            return []
        try:
            kept = list_versions(self._artefact)
        except ArtefactError:
            return []
        fingerprint = self.current.fingerprint
        same = [entry.digest for entry in kept if entry.served and entry.encoder == fingerprint]
        return list(reversed(same[: self._most]))

    def _read(self, digest: str) -> RuleIndex | None:
        try:
            return self._artefact.index(digest, self.current.fingerprint)
        except ArtefactError:
            return None
