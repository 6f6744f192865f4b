"""Converts an episode log and its rewards to groups.parquet, and computes statistics of the groups."""
