"""Measures whether an edited rule changes the answers."""
