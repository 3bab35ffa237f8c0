"""Running schedule after schedule, until one breaks an invariant or the time is over."""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from simulation.drawing import draw_plan
from simulation.plan import Plan
from simulation.product_edges import silenced
from simulation.world import Result, run_plan

_COLLECT_EVERY = 64  # schedules: the collector costs more than the garbage of some of them

_REPORT_EVERY = 10.0  # seconds


class Found(msgspec.Struct):
    """What a search came to. `failures` holds the results of the schedules that failed."""

    schedules: int = 0
    seconds: float = 0.0
    operations: int = 0
    acknowledged: int = 0
    grown: int = 0
    virtual_seconds: float = 0.0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    failures: list[Result] = []

    @property
    def per_minute(self) -> int:
        """Schedules per minute of processor time."""
        return round(self.schedules / self.seconds * 60) if self.seconds else 0


def search(
    seeds: Iterable[int],
    *,
    seconds: float | None = None,
    failures: int = 1,
    draw: Callable[[int], Plan] = draw_plan,
    progress: Callable[[Found], None] | None = None,
) -> Found:
    """Run the schedules of `seeds`, for at most `seconds` and until this number of `failures`.

    `progress` is called about every ten seconds.
    """
    found = Found()
    began = reported = time.process_time()
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        with silenced():
            for seed in seeds:
                _add(found, run_plan(draw(seed)))
                found.seconds = time.process_time() - began
                if found.schedules % _COLLECT_EVERY == 0:
                    gc.collect()
                if progress and found.seconds + began > reported + _REPORT_EVERY:
                    reported = found.seconds + began
                    progress(found)
                if len(found.failures) >= failures:
                    break
                if seconds is not None and found.seconds >= seconds:
                    break
    finally:
        if was_collecting:
            gc.enable()
    return found


def _add(found: Found, result: Result) -> None:
    found.schedules += 1
    found.operations += result.operations
    found.acknowledged += result.acknowledged
    found.grown += bool(result.plan.growths)
    found.virtual_seconds += result.seconds
    found.faults.update(result.struck)
    if result.violations:
        found.failures.append(result)
