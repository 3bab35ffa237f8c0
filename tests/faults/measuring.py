"""What a round's history says about availability and about the time until service is back.

An operation is available if its client knew its end within five seconds of its first request; the
client repeats it as its orders say. A request is available if it alone had a final answer within
five seconds. Operations that asked for 202 count apart: to them 202 is the answer.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from faults.history import Asked, History
from faults.nemesis import Injected
from microfin.ledger.routing import partition_of

WITHIN: Final = 5.0
"""Seconds."""


class Share(msgspec.Struct):
    """How many of how many."""

    good: int = 0
    all: int = 0

    def add(self, good: bool) -> None:
        """Count one."""
        self.good += good
        self.all += 1


class Broken(msgspec.Struct, kw_only=True):
    """One fault, and what its clients saw of it while it lasted and five seconds longer.

    `down` is how long the component was away or broken; `settled_after` is how long after that
    every partition settled operations again, None where that was not seen.
    """

    name: str
    targets: tuple[str, ...]
    amount: float
    excused: bool
    down: float
    settled_after: float | None
    operations: Share
    requests: Share
    late: int


class Measured(msgspec.Struct, kw_only=True):
    """The numbers of one round."""

    attempted: int
    acknowledged: int
    final: int
    ambiguous: int
    abandoned: int
    requests: int
    reads: int
    traffic_seconds: float
    operations: Share
    accepted: Share
    faults: list[Broken]
    results: dict[str, int]
    slowest: float


def measure(
    history: History, injected: Sequence[Injected], began: float, ended: float, partitions: int
) -> Measured:
    """Measure a round whose traffic lasted from `began` to `ended`."""
    asked = [it for it in history.asked if it.attempts]
    results: Counter[str] = Counter(
        f"{attempt.status} {attempt.code}".strip() for it in asked for attempt in it.attempts
    )
    return Measured(
        attempted=len(asked),
        acknowledged=sum(it.acknowledged is not None for it in asked),
        final=sum(it.answered is not None for it in asked),
        ambiguous=sum(any(a.result == "unknown" for a in it.attempts) for it in asked),
        abandoned=sum(it.abandoned for it in asked),
        requests=sum(len(it.attempts) for it in asked),
        reads=len(history.reads),
        traffic_seconds=ended - began,
        operations=_operations(it for it in asked if not it.asynchronous),
        accepted=_accepted(it for it in asked if it.asynchronous),
        faults=[_broken(asked, it, partitions) for it in injected],
        results=dict(results.most_common()),
        slowest=max((_took(it) for it in asked if it.answered is not None), default=0.0),
    )


def _took(asked: Asked) -> float:
    return (asked.answered or float("inf")) - asked.first_sent


def _operations(asked: Iterable[Asked]) -> Share:
    """Count those whose end was known in time. Who gave up before that does not count."""
    share = Share()
    for it in asked:
        if not it.abandoned or it.attempts[-1].ended - it.first_sent > WITHIN:
            share.add(_took(it) <= WITHIN)
    return share


def _accepted(asked: Iterable[Asked]) -> Share:
    share = Share()
    for it in asked:
        share.add((it.acknowledged or float("inf")) - it.first_sent <= WITHIN)
    return share


def _broken(asked: Sequence[Asked], it: Injected, partitions: int) -> Broken:
    until = it.returned + WITHIN
    touched = [
        one
        for one in asked
        if one.first_sent <= until and (one.answered or float("inf")) >= it.began
    ]
    waiting = [one for one in touched if not one.asynchronous]
    requests = Share()
    for one in waiting:
        for attempt in one.attempts:
            if attempt.sent <= until and attempt.ended >= it.began:
                requests.add(attempt.result == "final" and attempt.ended - attempt.sent <= WITHIN)
    return Broken(
        name=it.fault.name,
        targets=it.fault.targets,
        amount=it.fault.amount,
        excused=it.fault.excused,
        down=it.returned - it.began,
        settled_after=_settled_after(asked, it.returned, partitions),
        operations=_operations(waiting),
        requests=requests,
        late=sum(one.first_sent > until and _took(one) > WITHIN for one in asked),
    )


def _settled_after(asked: Sequence[Asked], returned: float, partitions: int) -> float | None:
    """Return the seconds from `returned` until each partition had settled something again."""
    first: dict[int, float] = defaultdict(lambda: float("inf"))
    for it in asked:
        if it.account and it.answered is not None and it.answered > returned:
            partition = partition_of(it.account, partitions)
            first[partition] = min(first[partition], it.answered)
    if len(first) < partitions:
        return None
    return max(first.values()) - returned
