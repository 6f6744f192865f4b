"""The command line `ascl-eval`. `ascl-train` imports `common` from here, so the commands load in `main`."""


def main() -> None:
    """Runs the command line."""
    from evaluation.cli.app import main as run

    run()
