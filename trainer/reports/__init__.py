"""Shows one episode as the trainer sees it, and compares runs."""
