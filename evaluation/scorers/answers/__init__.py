"""Compares an answer with the reference: exact match and LaTeX."""
