"""What the tests measured: told at the end of the run, and never a reason to fail."""

FIGURES: list[str] = []


def figure(told: str) -> None:
    """Tell a figure at the end of the run."""
    print(told)
    FIGURES.append(told)
