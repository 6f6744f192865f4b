"""The decision to consult in isolation: the first token of a small model's reply."""
