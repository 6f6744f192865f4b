"""The stage `logged`: offline training on logged episodes."""
