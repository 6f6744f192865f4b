"""Experiments: registered settings, the runner and the simulated outcomes."""
