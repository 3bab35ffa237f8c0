"""Ends a run with the figures of its tests."""

import pytest

from e2e.figures import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print them."""
    if FIGURES:
        terminalreporter.section("figures")
        for told in FIGURES:
            terminalreporter.write_line(told)
