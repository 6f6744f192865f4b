"""Stage `logged`: offline training on logged episodes."""
