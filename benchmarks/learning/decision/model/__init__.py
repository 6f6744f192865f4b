"""The model reduced to its first decision, its cold start and its training."""
