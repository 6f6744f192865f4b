"""Runs the command line as `python -m evaluation.cli`."""

from evaluation.cli import main

if __name__ == "__main__":
    main()
