"""Demonstrations on a real model: a short one in three acts, and the whole loop."""
