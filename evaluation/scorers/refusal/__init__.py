"""Detects refusals offline."""
