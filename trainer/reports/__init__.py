"""Readable reports: one episode as the trainer sees it, and a comparison of runs."""

from trainer.reports.plot import plot_runs

__all__ = ["plot_runs"]
