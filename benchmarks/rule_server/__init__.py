"""The running rule service: load, protocol overhead, startup, live reload."""
