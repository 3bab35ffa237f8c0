"""What a platform uses to which nobody speaks: CPU and memory of all its processes."""

import time
from typing import Final

from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.processes import cpu_of_tree, memory_of_tree
from microfin_local.ownership import owner

_SETTLE_SECONDS: Final = 20
_MEBIBYTE: Final = 2**20


def measure(turn: Turn) -> Measurement:
    """Watch the supervisor and all its descendants, after a little load and a pause."""
    seconds = turn.settings.seconds
    with turn.checkout.platform(WORKERS):
        turn.warm_up()
        supervisor = owner(turn.checkout.state)
        if supervisor is None:
            raise LoadImpossible(f"The platform in {turn.checkout.state} was stopped.")
        time.sleep(min(_SETTLE_SECONDS, seconds))
        began, before = time.monotonic(), cpu_of_tree(supervisor)
        time.sleep(seconds)
        spent = cpu_of_tree(supervisor) - before
        share = 100 * spent / (time.monotonic() - began)
        memory = memory_of_tree(supervisor)
    return {"cpu_percent": round(share, 2), "memory_mib": round(memory / _MEBIBYTE, 1)}


IDLE: Final = Part(
    name="idle",
    about="an idle platform: CPU in % of one core, and memory of everything",
    figures=(
        Figure("cpu_percent", "idle platform, 4 workers, CPU", "% of a core", 2),
        Figure("memory_mib", "memory of everything", "MiB", 700),
    ),
    measure=measure,
)
