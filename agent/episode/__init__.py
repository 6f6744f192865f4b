"""The Episode schema, its append-only log and its journal."""
