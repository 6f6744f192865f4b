"""The model reduced to its first decision: cold start, policy and training."""
