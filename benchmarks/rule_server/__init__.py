"""Performance of the running rule service: load, protocol overhead, startup, live reload."""
