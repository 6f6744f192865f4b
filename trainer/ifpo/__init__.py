"""Inverse Frequency Policy Optimization (arXiv 2602.13562): advantages in numpy, without torch or I/O."""
