"""Prompts of the decision experiments."""
