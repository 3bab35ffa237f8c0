"""The command line `microfin`: one module for each group of commands."""

from microfin_tools.cli.application import application


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    application(prog_name="microfin")
