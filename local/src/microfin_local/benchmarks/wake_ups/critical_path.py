"""From the kernel's scheduler events to what an operation waited for, by thread.

An operation ends when its client is woken by the answer. Something woke it, and was woken by
something else before: this chain, followed back to where the client began, is the critical path.
Each moment of an operation belongs to exactly one thread of it, so the parts add up to the whole.

A thread that is busy is not woken by what arrives. So the client pauses between two operations,
until everything sleeps.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set
from typing import Final, Literal

import msgspec

Kind = Literal["runs", "scheduling", "disk", "waits"]
"""`runs` on a processor; is awake and waits for one (`scheduling`); waits for the `disk`; or
`waits` for something that no thread of the platform did, such as a timer."""

_DISK: Final = "D"
_UNKNOWN: Final = float("inf")


class WakeUp(msgspec.Struct, frozen=True):
    """At `time` (seconds), the thread `by` woke `thread`. `by` is 0 if it was no thread."""

    time: float
    by: int
    thread: int


class Switch(msgspec.Struct, frozen=True):
    """At `time` (seconds), a processor stopped `before`, now in `state`, and runs `after`."""

    time: float
    before: int
    state: str
    after: int


class Run(msgspec.Struct):
    """One time of a thread on a processor. `woken` is None if it had only been interrupted.

    Its begin or its end is not known if the kernel has `lost` the event.
    """

    begin: float
    woken: WakeUp | None
    end: float = _UNKNOWN
    state: str = ""
    lost: bool = False


class Part(msgspec.Struct, frozen=True):
    """What an operation waited for, for how many seconds. `begun` by a wake-up, or else None."""

    thread: int
    kind: Kind
    seconds: float
    begun: WakeUp | None = None


def runs_of(events: Iterable[object]) -> dict[int, list[Run]]:
    """Return the times on a processor of each thread, in their order; so must `events` be.

    Events of other kinds are left out.
    """
    runs: dict[int, list[Run]] = {}
    woken: dict[int, WakeUp] = {}
    for event in events:
        if isinstance(event, WakeUp):
            woken.setdefault(event.thread, event)
        if not isinstance(event, Switch):
            continue
        _end(runs.setdefault(event.before, []), event)
        woken.pop(event.before, None)
        own = runs.setdefault(event.after, [])
        if own and own[-1].end == _UNKNOWN:
            own[-1].lost = True
        own.append(Run(event.time, woken.pop(event.after, None)))
    return runs


def _end(own: list[Run], event: Switch) -> None:
    """End the latest run of a thread."""
    if not own or own[-1].end != _UNKNOWN:
        own.append(Run(event.time, None, lost=True))
    own[-1].end, own[-1].state = event.time, event.state


def wake_ups_of(runs: dict[int, list[Run]]) -> list[WakeUp]:
    """Return the wake-ups after which a thread ran."""
    return [run.woken for own in runs.values() for run in own if run.woken is not None]


def operations_of(runs: list[Run], wakers: Set[int]) -> list[tuple[float, float]]:
    """Return when each operation of the client of `runs` began and ended.

    It ended when one of `wakers` had woken the client, and began when a timer had, before.
    """
    operations = []
    begun: float | None = None
    for run in runs:
        if run.woken is None:
            continue
        if run.woken.by not in wakers:
            begun = run.begin
        elif begun is not None:
            operations.append((begun, run.begin))
            begun = None
    return operations


def critical_path(
    runs: dict[int, list[Run]], known: Set[int], client: int, begin: float, end: float
) -> list[Part]:
    """Return the parts of the operation from `begin` to `end`, the last one first.

    Only what threads among `known` did is followed further. Returns nothing if the path does not
    lead to the client, because the kernel has lost an event.
    """
    parts = []
    for part, began in _back(runs, known, client, end):
        missing = max(0.0, begin - began)
        parts.append(msgspec.structs.replace(part, seconds=part.seconds - missing))
        if began <= begin:
            return parts if part.thread == client else []
    return []


def _back(
    runs: dict[int, list[Run]], known: Set[int], thread: int, moment: float
) -> Iterator[tuple[Part, float]]:
    """Yield the parts before `moment`, and when each began."""
    while True:
        own = runs.get(thread, [])
        index = bisect_right(own, moment, key=lambda run: run.begin) - 1
        if index < 1:
            return
        run, before = own[index], own[index - 1]
        if run.lost or before.lost or run.end < moment:
            return
        yield Part(thread, "runs", moment - run.begin, run.woken), run.begin
        since = before.end if run.woken is None else run.woken.time
        yield Part(thread, "scheduling", run.begin - since), since
        moment = since
        if run.woken is None:
            continue
        on_disk = before.state.startswith(_DISK)
        if on_disk or run.woken.by not in known:
            yield Part(thread, "disk" if on_disk else "waits", since - before.end), before.end
            moment = before.end
        else:
            thread = run.woken.by
