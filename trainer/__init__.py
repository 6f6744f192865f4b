"""Supervised cold start and IFPO training, built on TRL."""
