"""Authenticates callers, checks their scopes and limits their rate."""
