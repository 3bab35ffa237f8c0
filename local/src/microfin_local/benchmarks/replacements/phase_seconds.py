"""`PhaseSeconds` beside prometheus_client's Histogram: counting one phase of a batch.

All commands of a batch share their phases. Our histogram counts them at once, the library's one by
one.
"""

import time
from typing import Any, Final

from prometheus_client import Histogram
from prometheus_client.registry import CollectorRegistry

from microfin.process.phase_seconds import BOUNDS, PhaseSeconds
from microfin_local.benchmarks.replacements.side_by_side import Measure, compare

BATCHES: Final = (1, 10, 50, 500)
_OPERATIONS: Final = 100_000
_SECONDS: Final = 0.0123


async def measure_phase_seconds(runs: int, operations: int = _OPERATIONS) -> dict[str, Any]:
    """Return the microseconds of one operation's one phase, by the size of the batches."""
    registry = CollectorRegistry()
    ours = PhaseSeconds("ours_seconds", "Ours.", ("queue",), registry)["queue"]
    theirs = Histogram("theirs_seconds", "Theirs.", ("phase",), registry=registry, buckets=BOUNDS)
    child = theirs.labels("queue")
    compared = {}
    for size in BATCHES:

        def observe_at_once(size: int = size) -> None:
            ours.observe(_SECONDS, size)

        def observe_one_by_one(size: int = size) -> None:
            for _ in range(size):
                child.observe(_SECONDS)

        compared[str(size)] = await compare(
            _repeated(observe_at_once, operations, size),
            _repeated(observe_one_by_one, operations, size),
            runs=runs,
        )
    return {"one_phase_of_an_operation_by_batch": compared}


def _repeated(call: Any, operations: int, size: int) -> Measure:
    async def measure() -> float:
        began = time.process_time()
        for _ in range(operations // size):
            call()
        return 1_000_000 * (time.process_time() - began) / operations

    return measure
