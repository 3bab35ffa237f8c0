"""The last release and a bank for each test, on the session's real parts."""

import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from integration.bank import Bank
from microfin_local.platform import Platform
from mixed_versions.two_releases import LAST_RELEASE, PRESENT, Release, check_out, last_release


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The last release; as long as there is none, this checkout again, which a warning says."""
    release = last_release()
    if release:
        return check_out(release, tmp_path_factory.mktemp("last-release"))
    warnings.warn(
        f"{LAST_RELEASE.parent.name}/{LAST_RELEASE.name} names no release: this checkout runs "
        "against itself.",
        stacklevel=1,
    )
    return PRESENT


class MixedBank(Bank):
    """A bank whose databases are made by one release and migrated by another."""

    release = PRESENT

    async def migrate(self) -> None:
        """Migrate as the present release of the bank does."""
        await self.release.run(
            *self.release.command_line,
            *("migrate", "--partitions", str(self.partitions)),
            **self.environment("operator"),
        )


@pytest.fixture
async def bank(platform: Platform, tmp_path: Path, before: Release) -> AsyncIterator[Bank]:
    """A bank of four partitions, migrated by the last release."""
    made = MixedBank(platform, tmp_path, partitions=4)
    made.release = before
    async with made:
        made.release = PRESENT
        yield made
