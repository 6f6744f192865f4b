"""Turns an episode log and its rewards into groups.parquet, and describes what the groups can teach."""
