"""Samples episodes for the arms of an evaluation."""
