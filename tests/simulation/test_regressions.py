"""What the simulation has found once, as plans of their own."""

import pytest

from simulation.drawing import USERS
from simulation.plan import (
    Growth,
    Plan,
    PlannedAccount,
    PlannedClient,
    Step,
    Tuning,
)
from simulation.product_edges import silenced
from simulation.world import Result, run_plan

ACCOUNT = PlannedAccount("440130174210", USERS[0], "EUR", 1_000)
STEPS = [
    Step(f"{number}", "deposit", ACCOUNT.number, USERS[0], 1.0, amount="1", at_once=True)
    for number in range(4)
]


def grow_twice(seed: int, shards: int) -> Result:
    """Grow to 4 partitions and, before that has come to an end, to 6."""
    plan = Plan(
        seed=seed,
        shards=shards,
        partitions=2,
        apis=1,
        tuning=Tuning(500, 100, 8, 0.0, 5.0, 10.0, 60.0),
        accounts=[ACCOUNT],
        clients=[PlannedClient("client-0", STEPS)],
        growths=[Growth(0.2, 4), Growth(0.4, 6)],
        faults=[],
    )
    with silenced():
        return run_plan(plan)


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_growth_goes_on_where_another_came_first(seed: int, shards: int) -> None:
    """The command to 6 partitions mistook the other one's generation for its own: it said that
    it had grown, and the routing stayed at 4."""
    assert grow_twice(seed, shards).violations == []
