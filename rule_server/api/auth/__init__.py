"""Authenticates callers, checks their scopes and limits their rate."""

from rule_server.api.auth.authenticator import (
    LOCAL_PRINCIPAL,
    Authenticator,
    Principal,
    anonymous_principal,
    is_public,
    required_scope,
)
from rule_server.api.auth.rate_limit import RateLimit
from rule_server.api.auth.tokens import SCOPES, new_token, read_tokens, remove_token

__all__ = [
    "Authenticator",
    "LOCAL_PRINCIPAL",
    "Principal",
    "RateLimit",
    "SCOPES",
    "anonymous_principal",
    "is_public",
    "new_token",
    "read_tokens",
    "remove_token",
    "required_scope",
]
