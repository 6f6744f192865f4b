"""Authenticates callers, checks their scopes and limits their rate."""

from rule_server.api.auth.authenticator import (
    LOCAL,
    Authenticator,
    Principal,
    is_public,
    nameless,
    needed_scope,
)
from rule_server.api.auth.rate_limit import RateLimit
from rule_server.api.auth.tokens import SCOPES, new_token, read_tokens, remove_token

__all__ = [
    "Authenticator",
    "LOCAL",
    "Principal",
    "RateLimit",
    "SCOPES",
    "is_public",
    "nameless",
    "needed_scope",
    "new_token",
    "read_tokens",
    "remove_token",
]
