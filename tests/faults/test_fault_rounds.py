"""Ten fixed seeds of short rounds on one platform: whatever breaks, money is right afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from faults import results
from faults.playing import Traffic, play
from faults.running import tell
from faults.schedule import GROWTH, WORKERS, plan
from faults.stage import Stage

SEEDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
GROWS = SEEDS[-1]
TRAFFIC = Traffic(rate=200.0, least_seconds=7.0, calm_seconds=4.0)
ACCOUNTS = 200
EVIDENCE = results.REPOSITORY / ".local" / "faults" / "evidence"


@pytest.fixture(scope="module")
async def stage(real_components: None) -> AsyncIterator[Stage]:
    async with Stage(WORKERS, ACCOUNTS, print) as stage:
        yield stage


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
async def test_money_is_right_after(stage: Stage, seed: int) -> None:
    this = plan(seed, 0)
    if seed == GROWS:
        this = msgspec.structs.replace(this, grow_to=WORKERS + GROWTH)
    played = await play(stage, this, TRAFFIC, seed, print)
    print(f"{this.names}: {tell(results.result_of(played, seed, ''))}")
    place: Path | None = None
    if played.findings:
        logs = stage.platform.configuration.logs
        place = results.keep_evidence(EVIDENCE, played, seed, logs)
    assert not played.findings, f"the evidence is in {place}"
    assert played.measured.final > 0
