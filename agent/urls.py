"""Validates URLs and bearer tokens before use, and formats URLs without secrets."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def public_address(url: str) -> str:
    """Returns an http(s) URL without its credentials and its query, which may contain a key.

    Raises:
        ValueError: if it is not an http(s) URL, or its port is invalid.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http(s) address")
    if parts.port == 0:
        raise ValueError("port 0 is invalid")
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def without_secrets(text: str) -> str:
    """Returns a user's address, valid or not, without the parts that may contain a secret."""
    return text.rpartition("@")[2].partition("?")[0]


def bearer(secret: str | None) -> dict[str, str]:
    """Returns the authorization header for a key, or no header for an empty one.

    Surrounding white space, such as the line break of a key file, is removed.

    Raises:
        ValueError: if the key contains characters that a header cannot carry; the message omits the key.
    """
    key = (secret or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("it contains characters that an HTTP header cannot carry")
    return {"Authorization": f"Bearer {key}"} if key else {}
