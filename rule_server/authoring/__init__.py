"""Tools for rule authors: lint, diff, replay, calibration and usage statistics."""
