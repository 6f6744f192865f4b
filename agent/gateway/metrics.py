"""What the gateway counts, in the text form that Prometheus reads."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class GatewayMetrics:
    """Totals since the start; each field is one sentence in the listing."""

    requests: int = 0
    """Conversations asked for."""
    not_offered: int = 0
    """Conversations passed on without the rule tool, at the caller's wish or because it was not possible."""
    consulted: int = 0
    """Conversations in which the model consulted the rules."""
    consultations: int = 0
    """Calls of the rule tool."""
    rules_errors: int = 0
    """Conversations in which the rules could not be consulted."""
    mixed: int = 0
    """Replies that called the rule tool and the caller's tools at once."""
    restored: int = 0
    """Consultations put back into a later request of the caller."""
    coalesced: int = 0
    """Requests sent again that went on from what an earlier try had found out."""
    text_before_consulting: int = 0
    """Streams in which the caller had been sent text before the model consulted."""
    upstream_errors: int = 0
    """Conversations that the upstream did not answer."""
    abandoned: int = 0
    """Conversations whose caller left before the end."""

    def text(self) -> str:
        """All of them, one a line with its type."""
        lines = []
        for field in fields(self):
            name = f"ascl_gateway_{field.name}_total"
            lines += [f"# TYPE {name} counter", f"{name} {getattr(self, field.name)}"]
        return "\n".join(lines) + "\n"
