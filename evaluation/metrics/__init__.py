"""Rates, differences and tests, each with its interval."""
