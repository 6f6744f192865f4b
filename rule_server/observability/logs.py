"""Service logs as text or JSON, without tokens and question texts."""

from __future__ import annotations

import datetime
import json
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rule_server.settings import Settings

ACCESS = logging.getLogger("rule_server.access")


class JsonLines(logging.Formatter):
    """Formats a record as one JSON line. The record's `fields` become separate keys."""

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
    """Configures logging to standard error from the settings."""
    handler = logging.StreamHandler()
    plain = logging.Formatter("ascl-rules: %(message)s")
    handler.setFormatter(JsonLines() if settings.log_format == "json" else plain)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rule_server").setLevel(logging.INFO)
    ACCESS.setLevel(logging.INFO if settings.access_log else logging.WARNING)


def log_access(caller: str, method: str, route: str, status: int, seconds: float) -> None:
    """Logs one request. `route` is a declared path, never one that the caller made up."""
    fields = {
        "caller": caller,
        "method": method,
        "route": route,
        "status": status,
        "seconds": round(seconds, 6),
    }
    ACCESS.info("%s %s %s %d %.4f s", caller, method, route, status, seconds, extra={"fields": fields})


def now() -> str:
    """Returns the current time in UTC as ISO 8601 with milliseconds, e.g. 2026-11-29T23:42:00.123+00:00."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
