"""Child processes, and files written atomically."""
