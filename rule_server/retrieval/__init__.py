"""Embeds, indexes and scores rules, and stores the index artefact on disk."""
