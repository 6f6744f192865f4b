"""Benchmark scripts, one per claim. The RESULTS.md files contain their output."""
