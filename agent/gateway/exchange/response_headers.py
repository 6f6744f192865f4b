"""The headers that tell the caller whether and which rules were consulted."""

from __future__ import annotations

from dataclasses import dataclass

from agent.episode import Consultation, ErrorRecord
from agent.errors import RulesError
from agent.tools import ToolOffer


@dataclass(frozen=True)
class ResponseHeaders:
    """The gateway's own headers of one reply.

    Args:
        offer: the rule tool; None if it was not offered.
        reason_not_offered: why it was not offered.
        consultations: the calls of the rule tool so far.
        error: the last error of the exchange, of the rule service or the upstream.
    """

    offer: ToolOffer | None
    reason_not_offered: str | None
    consultations: list[Consultation]
    error: ErrorRecord | None

    def build(self, *, final: bool) -> dict[str, str]:
        """Returns the headers; `final` if the model can no longer consult."""
        state = "yes" if self.consultations else "no" if final else "pending"
        headers = {"x-ascl-consulted": "not-offered" if self.offer is None else state}
        if self.reason_not_offered:
            headers["x-ascl-not-offered"] = self.reason_not_offered
        ids = list(dict.fromkeys(rule.id for c in self.consultations for rule in c.rules))
        if ids:
            headers["x-ascl-rules"] = ", ".join(ids)
        digests = [c.digest for c in self.consultations if c.digest]
        if digests:
            headers["x-ascl-rulebook"] = digests[-1]
        elif self.offer:
            headers["x-ascl-rulebook"] = str(self.offer.digest)
        if self.rules_error is not None:
            headers["x-ascl-rules-error"] = self.rules_error
        return headers

    @property
    def rules_error(self) -> str | None:
        """Why the model got no rules; None if it did, or did not consult.

        `no_verdict`: every call was malformed, or the service returned no verdict.
        """
        if self.error is not None and self.error.boundary == RulesError.boundary:
            return self.error.type
        if self.consultations and all(each.verdict is None for each in self.consultations):
            return "no_verdict"
        return None
