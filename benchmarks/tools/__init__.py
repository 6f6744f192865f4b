"""Shared by the benchmarks: an HTTP load generator, CPU pinning, means over seeds."""
