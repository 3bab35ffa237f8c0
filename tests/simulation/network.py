"""How long messages travel, and which of them are lost: drawn by the plan's faults."""

from collections import Counter
from collections.abc import Callable
from random import Random

from simulation.history import History
from simulation.plan import (
    Counted,
    Event,
    LossyReplies,
    LostProduce,
    LostStatement,
    LyingCache,
    Moment,
    Plan,
    SlowNetwork,
    SlowProduce,
    StaleEnds,
)
from simulation.virtual_loop import VirtualLoop


class Network:
    """All ways between the processes. `healed` ends the faults."""

    def __init__(self, loop: VirtualLoop, plan: Plan, history: History) -> None:
        self.loop = loop
        self.history = history
        self.struck: Counter[str] = Counter()
        self._random = Random(f"network {plan.seed}")
        self._draw = self._random.random
        self._slow: list[SlowNetwork] = []
        self._replies = LossyReplies(0.0, 0.0, 0.0)
        self._cache = 0.0
        self._ends_age = 0.0
        self._statements: dict[tuple[str, int, Counted], LostStatement] = {}
        self._produces: dict[tuple[str, int], LostProduce | SlowProduce] = {}
        self._watched: dict[tuple[str, Event, int], Callable[[], None]] = {}
        self._counted: Counter[tuple[str, str]] = Counter()
        for fault in plan.faults:
            match fault:
                case SlowNetwork():
                    self._slow.append(fault)
                case LossyReplies():
                    self._replies = fault
                case LyingCache():
                    self._cache = max(self._cache, fault.probability)
                case StaleEnds():
                    self._ends_age = max(self._ends_age, fault.seconds)
                case LostStatement():
                    self._statements[(fault.process, fault.number, fault.counted)] = fault
                case LostProduce() | SlowProduce():
                    self._produces[(fault.process, fault.number)] = fault

    def heal(self) -> None:
        """End all faults of the network."""
        self._slow.clear()
        self._replies = LossyReplies(0.0, 0.0, 0.0)
        self._cache = 0.0
        self._ends_age = 0.0
        self._statements.clear()
        self._produces.clear()

    def delay(self) -> float:
        """Return the seconds that a message travels."""
        delay = 0.0002 + self._draw() * 0.002
        for slow in self._slow:
            if self._draw() < slow.probability:
                self.struck["SlowNetwork"] += 1
                delay += self._draw() * slow.seconds
        return delay

    def statement_fault(self, process: str, *, commits: bool, sends: bool) -> LostStatement | None:
        """Count a statement of `process`, and return what befalls it."""
        counted: list[Counted] = ["statement"]
        counted += ["commit"] if commits else []
        counted += ["sending commit"] if commits and sends else []
        found = None
        for what in counted:
            number = self._count(process, what)
            found = self._statements.pop((process, number, what), None) or found
            if what != "statement":
                self._notice(process, what, number)
        if found is not None:
            self.struck[f"LostStatement {found.outcome}"] += 1
        return found

    def produce_fault(self, process: str) -> LostProduce | SlowProduce | None:
        """Count a record that `process` appends, and return what befalls it."""
        number = self._count(process, "produce")
        self._notice(process, "produce", number)
        fault = self._produces.pop((process, number), None)
        if fault is not None:
            how = f" {fault.outcome}" if isinstance(fault, LostProduce) else ""
            self.struck[f"{type(fault).__name__}{how}"] += 1
        return fault

    def reply_delays(self) -> list[float]:
        """Return when the copies of a reply arrive: none, one or two of them."""
        replies = self._replies
        if replies.lost and self._draw() < replies.lost:
            self.struck["LossyReplies lost"] += 1
            return []
        delays = [self.delay()]
        if replies.late and self._draw() < replies.late:
            self.struck["LossyReplies late"] += 1
            delays[0] += self._draw() * 3
        if replies.repeated and self._draw() < replies.repeated:
            self.struck["LossyReplies repeated"] += 1
            delays.append(self.delay() + self._draw() * 3)
        return delays

    def cache_lies(self) -> bool:
        """Whether the cache fails this time."""
        lies = self._cache > 0 and self._draw() < self._cache
        if lies:
            self.struck["LyingCache"] += 1
        return lies

    def ends_age(self) -> float:
        """Return the age, in seconds, of the log's ends that a broker reports."""
        self.struck["StaleEnds"] += self._ends_age > 0
        return self._ends_age

    def watch(self, moment: Moment, strike: Callable[[], None]) -> None:
        """Call `strike` at a moment that is counted here."""
        self._watched[(moment.process, moment.event, moment.number)] = lambda: self.loop.later(
            moment.after, strike
        )

    def _notice(self, process: str, event: Event, number: int) -> None:
        watching = self._watched.pop((process, event, number), None)
        if watching is not None:
            watching()

    def _count(self, process: str, what: str) -> int:
        self._counted[(process, what)] += 1
        return self._counted[(process, what)]
