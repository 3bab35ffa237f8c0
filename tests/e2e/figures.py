"""What the tests measured: printed at the end of the run, and never a reason to fail."""

FIGURES: list[str] = []


def figure(text: str) -> None:
    """Print a figure, now and at the end of the run."""
    print(text)
    FIGURES.append(text)
