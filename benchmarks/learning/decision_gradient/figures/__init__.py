"""Figures and tables of the measured gradients, by method."""
