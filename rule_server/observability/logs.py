"""What the service logs, for people or as JSON; never a token or a question."""

from __future__ import annotations

import datetime
import json
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rule_server.settings import Settings

ACCESS = logging.getLogger("rule_server.access")


class JsonLines(logging.Formatter):
    """A record as one JSON line; `fields` of the record become keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        value: dict[str, object] = {
            "at": now(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        value |= getattr(record, "fields", {})
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)


def set_up_logs(settings: Settings) -> None:
    """Log to standard error as the settings say."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("ascl-rules: %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else plain)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rule_server").setLevel(logging.INFO)
    ACCESS.setLevel(logging.INFO if settings.access_log else logging.WARNING)


def log_access(caller: str, method: str, route: str, status: int, seconds: float) -> None:
    """One request; `caller` is a name, `route` has no part that the caller chose."""
    fields = {
        "caller": caller,
        "method": method,
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
    }
    ACCESS.info("%s %s %s %d %.4f s", caller, method, route, status, seconds, extra={"fields": fields})


def now() -> str:
    """The time in UTC, ISO 8601, to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
