"""The training stages `sft`, `logged` and `online`, and what they share."""
