"""A start model, and whole episodes sampled from it."""
