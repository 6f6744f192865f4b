"""Checks a rulebook for mistakes that loading it does not find."""
