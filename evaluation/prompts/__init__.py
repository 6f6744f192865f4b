"""Prompt sets: files, built-in sets and data sets of the hub."""
