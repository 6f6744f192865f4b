"""Shows one episode as the trainer sees it, and compares runs."""

from trainer.reports.plot import plot_runs

__all__ = ["plot_runs"]
