"""Runs one prompt as a state machine, and many prompts into one log."""
