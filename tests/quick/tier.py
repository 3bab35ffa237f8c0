"""A pytest plugin: the option `--quick` selects the tests that start no real component.

The selection needs no list: a test that starts real components requests the fixture
`real_components`, itself or through another fixture (`platform`). A test that starts them
without this request fails, with `--quick` and without. The mark `long` is for a test without real
components that computes for more than ten seconds, all its parameters together; `--quick` leaves
it out, too.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from quick.real_components import REAL_COMPONENTS, REFUSALS, on_start, refuse

FIXTURE = "real_components"
LONG = "long"
_SITE = Path(__file__).parent / "site"
# A shell script that a test starts finds this on its PATH, before the real component.
_REFUSAL = """#!/bin/sh
echo "${0##*/}" >>"${0%/*}/refused"
exit 97
"""


class _Tier:
    """What is known about the running test."""

    def __init__(self, *, quick: bool) -> None:
        self.quick = quick
        self.item: pytest.Item | None = None
        self._refusals = Path(tempfile.mkdtemp(prefix="microfin-quick-")) if quick else None
        #: Commands that tests with the fixture have started. Their supervisor may start one of
        #: them again while a later test runs.
        self._started: set[tuple[str, ...]] = set()

    def refuse_in_other_processes(self) -> None:
        """Refuse real components in the Python processes and the shell scripts that tests start."""
        if self._refusals is None:
            return
        for name in REAL_COMPONENTS:
            program = self._refusals / name
            program.write_text(_REFUSAL)
            program.chmod(0o755)
        os.environ[REFUSALS] = str(self._refusals / "refused")
        _prepend("PATH", self._refusals)
        _prepend("PYTHONPATH", _SITE)

    def on_start(self, component: str, command: tuple[str, ...]) -> None:
        """Refuse a real component that this process starts for a test without the fixture."""
        if self.quick:
            refuse(component, command)
        elif self.item is None or starts_real_components(self.item):
            self._started.add(command)
        elif command not in self._started:
            refuse(component, command)

    def expect_nothing_refused(self) -> None:
        """Fail where a process that the test started was refused a real component."""
        if self._refusals is None:
            return
        log = self._refusals / "refused"
        if log.exists():
            component = log.read_text().split()[0]
            log.unlink()
            refuse(component, ())

    def end(self) -> None:
        """Remove the files of this run."""
        if self._refusals is not None:
            for path in self._refusals.iterdir():
                path.unlink()
            self._refusals.rmdir()


def _prepend(variable: str, folder: Path) -> None:
    paths = [str(folder), os.environ.get(variable, "")]
    os.environ[variable] = os.pathsep.join(filter(None, paths))


_TIER = pytest.StashKey[_Tier]()


def starts_real_components(item: pytest.Item) -> bool:
    """Return whether a test requests the fixture, itself or through another fixture."""
    return FIXTURE in getattr(item, "fixturenames", ())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--quick", action="store_true", help="run only the tests without real components"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch which processes start."""
    config.addinivalue_line("markers", f"{LONG}: computes for more than ten seconds")
    tier = config.stash[_TIER] = _Tier(quick=config.getoption("quick"))
    on_start(tier.on_start)
    tier.refuse_in_other_processes()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave no file behind."""
    config.stash[_TIER].end()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests that start real components, and the long ones."""
    if not config.stash[_TIER].quick:
        return
    left_out = [it for it in items if starts_real_components(it) or it.get_closest_marker(LONG)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Remember the test before its fixtures start anything."""
    item.config.stash[_TIER].item = item
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Look whether a process that the test started was refused a real component."""
    try:
        return (yield)
    finally:
        item.config.stash[_TIER].expect_nothing_refused()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Forget the test before fixtures that it shares with others end."""
    item.config.stash[_TIER].item = None
    return (yield)


@pytest.fixture(scope="session")
def real_components(request: pytest.FixtureRequest) -> None:
    """Say that a test starts PostgreSQL, PgBouncer, Redis, Kafka, nginx or Prometheus."""
    if request.config.stash[_TIER].quick:
        pytest.fail("A test of the quick tier requests `real_components` only at run time.")
