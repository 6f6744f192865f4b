"""Answers consultations: batching, snapshots and live reload."""
