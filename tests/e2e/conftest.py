"""Ends a run with the figures of its tests."""

import pytest

from e2e.figures import FIGURES


@pytest.fixture(autouse=True, scope="session")
def cluster(real_components: None) -> None:
    """Mark every test here as one with real components: those of the cluster."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print them."""
    if FIGURES:
        terminalreporter.section("figures")
        for figure in FIGURES:
            terminalreporter.write_line(figure)
