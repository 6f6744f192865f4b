"""Tools shared by the benchmarks: an HTTP load generator, CPU pinning, and means over seeds."""
