"""Whole episodes through the rule service, with real rewards."""
