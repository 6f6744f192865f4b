"""Addresses and keys as users give them: checked before anything is sent, and shown without secrets."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def public_address(url: str) -> str:
    """An http(s) address without credentials and query, which may hold a key.

    Raises:
        ValueError: when it is none, or names no port there can be.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no http(s) address")
    if parts.port == 0:
        raise ValueError("no port that can be asked")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def without_secrets(text: str) -> str:
    """What was given as an address, whatever it is, as far as it can be shown."""
    return text.rpartition("@")[2].partition("?")[0]


def bearer(secret: str | None) -> dict[str, str]:
    """The header that carries a key; white space around it, such as a file's line break, is left out.

    Raises:
        ValueError: when no header can hold it; the key is not in the text.
    """
    key = (secret or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("it holds characters that no header can carry")
    return {"Authorization": f"Bearer {key}"} if key else {}
