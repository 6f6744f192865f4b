"""Stratified groups of fresh episodes: some replies are sampled with a forced mode."""
