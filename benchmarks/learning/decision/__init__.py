"""The decision to consult, alone: the first token of a small model's reply, trained and measured exactly."""
