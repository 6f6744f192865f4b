"""Parses Markdown rule files into a validated `Rulebook` with a digest."""
