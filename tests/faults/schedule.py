"""Which faults a round has. Drawn from the seed and the round's number alone, so that it replays.

A platform lives for some rounds and is then forgotten, because partitions never shrink and each
growth adds a worker. In a life the platform grows twice, in rounds that the seed chooses.
"""

from collections.abc import Callable
from random import Random
from typing import Final

import msgspec

LIFE: Final = 20
"""Rounds that one platform serves."""

WORKERS: Final = 4
API_PROCESSES: Final = 2
BROKERS: Final = (1, 2, 3)
REDIS_NODES: Final = 6
GROWTH: Final = 2  # partitions that a growth adds
_GROWTHS: Final = 2

_LEAD: Final = 1.5  # seconds of peace before the first fault
_DOUBLE: Final = 0.35
_GROWTH_WITH_FAULT: Final = 0.8


class Fault(msgspec.Struct, frozen=True):
    """One fault. `begin` and `seconds` are seconds: from the beginning of the round, and how long.

    `targets` are processes, or ways through the proxy; `amount` is what its kind makes of it.
    """

    kind: str
    targets: tuple[str, ...]
    begin: float = 2.0
    seconds: float = 0.0
    amount: float = 0.0

    @property
    def name(self) -> str:
        """What it is, in a word or two."""
        return f"{self.kind} {_KIND_OF_PART.get(self._part, self._part)}"

    @property
    def _part(self) -> str:
        if len(self.targets) > 1:
            return f"all {self.targets[0].rpartition('-')[0]}"
        return self.targets[0].rpartition("-")[0] or self.targets[0]

    @property
    def excused(self) -> bool:
        """Whether it is a loss of PostgreSQL, PgBouncer, most brokers or the clients' way."""
        text = " ".join(self.targets)
        if self.kind == "clock":
            return False
        if text == "client-nginx":
            return True
        if "postgres" in text or "pgbouncer" in text:
            return True
        return "kafka" in text and len(self.targets) > 1


_KIND_OF_PART: Final = {"kafka": "broker", "all redis": "all of redis", "all kafka": "two brokers"}


class Plan(msgspec.Struct, frozen=True):
    """What happens in a round. `grow_to` is 0 where the platform does not grow."""

    round: int
    partitions: int
    faults: tuple[Fault, ...]
    grow_to: int = 0

    @property
    def names(self) -> str:
        """All faults in one line."""
        names = [fault.name for fault in self.faults]
        return " + ".join([*names, *(["growth"] if self.grow_to else [])])


def plan(seed: int, number: int) -> Plan:
    """Return the plan of a round."""
    random = Random(f"{seed}/{number}")
    partitions, grows = _growths(seed, number)
    first = _draw(random, partitions, random.uniform(_LEAD, _LEAD + 1.0))
    faults = [first]
    if not grows and random.random() < _DOUBLE:
        faults.append(_draw(random, partitions, first.begin + random.uniform(0.0, 2.5)))
    if grows and random.random() > _GROWTH_WITH_FAULT:
        faults.clear()
    return Plan(number, partitions, tuple(faults), partitions + GROWTH if grows else 0)


def _growths(seed: int, number: int) -> tuple[int, bool]:
    """Return how many partitions there are when a round begins, and whether it grows."""
    life, place = divmod(number, LIFE)
    rounds = Random(f"{seed}/life {life}").sample(range(2, LIFE), _GROWTHS)
    before = sum(it < place for it in rounds)
    return WORKERS + GROWTH * before, place in rounds


# Drawing ------------------------------------------------------------------------------------


def _workers(random: Random, partitions: int) -> tuple[str, ...]:
    return (f"worker-{random.randrange(partitions)}",)


def _api(random: Random, _partitions: int) -> tuple[str, ...]:
    return (f"api-{random.randrange(API_PROCESSES)}",)


def _broker(random: Random, _partitions: int) -> tuple[str, ...]:
    return (f"kafka-{random.choice(BROKERS)}",)


def _leader(random: Random, partitions: int) -> tuple[str, ...]:
    """The leader of a partition when the fault begins."""
    return (f"leader-{random.randrange(partitions)}",)


def _redis_node(random: Random, _partitions: int) -> tuple[str, ...]:
    return (f"redis-{random.randrange(REDIS_NODES)}",)


def _all_redis(_random: Random, _partitions: int) -> tuple[str, ...]:
    return tuple(f"redis-{number}" for number in range(REDIS_NODES))


def _two_brokers(random: Random, _partitions: int) -> tuple[str, ...]:
    return tuple(f"kafka-{number}" for number in sorted(random.sample(BROKERS, 2)))


def _one(name: str) -> "_Targets":
    return lambda _random, _partitions: (name,)


_Targets = Callable[[Random, int], tuple[str, ...]]
_PARTS: Final[tuple[tuple[_Targets, int], ...]] = (
    (_workers, 4),
    (_api, 3),
    (_one("postgres-0"), 2),
    (_one("pgbouncer"), 2),
    (_broker, 2),
    (_leader, 2),
    (_redis_node, 2),
    (_all_redis, 1),
)


def _way(random: Random, _partitions: int) -> tuple[str, ...]:
    """Return one way between two components, or all that lead from one to the others of a kind."""
    node = random.choice(BROKERS)
    return random.choice(
        (
            ("api-pgbouncer",),
            ("worker-pgbouncer",),
            ("pgbouncer-postgres-0",),
            (f"api-kafka-{node}",),
            (f"worker-kafka-{node}",),
            (f"kafka-kafka-{node}",),
            tuple(f"api-kafka-{it}" for it in BROKERS),
            tuple(f"worker-kafka-{it}" for it in BROKERS),
            (f"redis-{random.randrange(REDIS_NODES)}",),
            _all_redis(random, 0),
            (f"nginx-api-{random.randrange(API_PROCESSES)}",),
            ("client-nginx",),
        )
    )


def _clock_owner(random: Random, partitions: int) -> tuple[str, ...]:
    owners = (_workers, _api, _broker, _one("postgres-0"))
    return random.choice(owners)(random, partitions)


def _length(random: Random, least: float, most: float) -> float:
    return round(random.uniform(least, most), 2)


def _draw_on_part(kind: str, least: float, most: float) -> "_Draw":
    def draw(random: Random, partitions: int, begin: float) -> Fault:
        targets, weights = zip(*_PARTS, strict=True)
        chosen = random.choices(targets, weights)[0](random, partitions)
        return Fault(kind, chosen, begin, _length(random, least, most))

    return draw


def _draw_on(kind: str, targets: _Targets, least: float, most: float) -> "_Draw":
    def draw(random: Random, partitions: int, begin: float) -> Fault:
        chosen = targets(random, partitions)
        return Fault(kind, chosen, begin, _length(random, least, most))

    return draw


def _draw_delay(random: Random, partitions: int, begin: float) -> Fault:
    amount = random.choice((0.02, 0.1, 0.4))
    return Fault("delay", _way(random, partitions), begin, _length(random, 2, 5), amount)


def _draw_disk(random: Random, _partitions: int, begin: float) -> Fault:
    """Fill the disk; with an amount of 1 PostgreSQL needs new files for its log at once, too."""
    amount = random.choice((0.0, 1.0))
    return Fault("disk full", ("postgres-0",), begin, _length(random, 2, 4), amount)


def _draw_clock(random: Random, partitions: int, begin: float) -> Fault:
    amount = random.choice((-3600.0, -30.0, -3.0, 3.0, 30.0, 3600.0))
    targets = _clock_owner(random, partitions)
    return Fault("clock", targets, begin, _length(random, 3, 6), amount)


_Draw = Callable[[Random, int, float], Fault]
_KINDS: Final[tuple[tuple[_Draw, int], ...]] = (
    (_draw_on_part("kill", 0, 0), 22),
    (_draw_on_part("freeze", 0.5, 4), 16),
    (_draw_on_part("stop", 0, 0), 10),
    (_draw_on_part("absence", 1, 4), 10),
    (_draw_on("zombie", _workers, 2, 4), 6),
    (_draw_on("absence", _two_brokers, 2, 5), 4),
    (_draw_on("replies cut", _all_redis, 2, 5), 4),
    (_draw_on("drop", _way, 0.2, 3), 8),
    (_draw_delay, 6),
    (_draw_on("hold", _way, 1, 4), 6),
    (_draw_on("vanish", _way, 1, 4), 8),
    (_draw_disk, 4),
    (_draw_clock, 6),
)


def _draw(random: Random, partitions: int, begin: float) -> Fault:
    (draw,) = random.choices([it for it, _ in _KINDS], [weight for _, weight in _KINDS])
    return draw(random, partitions, round(begin, 2))
