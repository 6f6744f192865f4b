"""Cost of a training step, of preparing groups and of tool calls."""
