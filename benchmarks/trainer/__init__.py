"""Cost of a training step and of preparing groups."""
