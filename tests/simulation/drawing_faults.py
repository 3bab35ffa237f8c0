"""Drawing the faults of a plan."""

from random import Random
from typing import Final

from simulation.plan import (
    Crash,
    DatabaseRestart,
    Event,
    Fault,
    Garbage,
    GracefulStop,
    Growth,
    LossyReplies,
    LostProduce,
    LostStatement,
    LyingCache,
    Moment,
    Outcome,
    Pause,
    SecondActivator,
    SecondOwner,
    SlowNetwork,
    SlowProduce,
    StaleEnds,
)


def draw_faults(
    random: Random, shards: int, partitions: int, apis: int, growths: list[Growth]
) -> list[Fault]:
    """Draw faults: often one after the other on the same process."""
    most = max([partitions, *(growth.partitions for growth in growths)])
    faults: list[Fault] = []
    process = ""
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4))):
        if not process or random.random() < 0.5:
            process = _process(random, most, apis, growing=bool(growths))
        if growths and process != "activator" and random.random() < 0.3:
            late = random.uniform(1.05, 3.0)  # across the growth
            faults.append(SlowProduce(process, random.randint(1, 6), late))
            continue
        faults += _fault_of(random, process, shards, most)
    if growths and random.random() < 0.3:
        faults += _stale_growth(random, partitions, growths[0])
    return faults


def _stale_growth(random: Random, partitions: int, growth: Growth) -> list[Fault]:
    """Let an old broker report the log's ends, often while a worker is behind the true ones."""
    faults: list[Fault] = [StaleEnds(random.uniform(0.5, 10.0))]
    if random.random() < 0.7:
        claimed = f"worker-{random.randrange(partitions)}"
        asleep = Moment(claimed, "commit", 1, growth.at + random.uniform(0.0, 1.0))
        faults.append(Pause(asleep, random.uniform(1.5, 6.0)))
    return faults


def _process(random: Random, partitions: int, apis: int, *, growing: bool) -> str:
    if growing and random.random() < 0.25:
        return "activator"
    if random.random() < 0.65:
        return f"worker-{random.randrange(partitions)}"
    return f"api-{random.randrange(apis)}"


def _fault_of(  # noqa: PLR0911 - one case a kind of fault
    random: Random, process: str, shards: int, partitions: int
) -> list[Fault]:
    if process == "activator":
        return [_activator_fault(random)]
    if random.random() < 0.25:
        return [_surrounding_fault(random, shards, partitions)]
    match random.randrange(8):
        case 0 | 1:
            return [Crash(_moment(random, process), random.choice((0.01, 0.1, 1.0)))]
        case 2:
            return [Pause(_moment(random, process), _long(random))]
        case 3 | 4:
            return [
                LostStatement(
                    process,
                    *random.choice(
                        ((random.randint(1, 8), "commit"), (random.randint(1, 3), "sending commit"))
                    ),
                    random.choice(("lost before", "lost after", "late", "late", "late")),
                    random.choice((_short(random), random.uniform(0.1, 1.9))),
                )
            ]
        case 5:
            outcome: Outcome = random.choice(("lost before", "lost after", "late", "hung"))
            return [
                LostStatement(process, random.randint(1, 40), "statement", outcome, _short(random))
            ]
        case 6:
            number = random.randint(1, 5)
            outcome = random.choice(("lost before", "lost after", "late", "hung", "refused"))
            lost = LostProduce(process, number, outcome, _long(random))
            if random.random() < 0.5:
                return [lost]
            return [lost, Crash(Moment(process, "produce", number, random.random()), 0.1)]
        case _:
            return [SlowProduce(process, random.randint(1, 5), _long(random))]


def _surrounding_fault(  # noqa: PLR0911 - one case a kind of fault
    random: Random, shards: int, partitions: int
) -> Fault:
    at = random.uniform(0.0, 1.5)
    match random.randrange(7):
        case 6:
            return Garbage(random.randrange(partitions), at)
        case 0:
            return SecondOwner(random.randrange(partitions), at)
        case 1:
            return GracefulStop(random.randrange(partitions), at, 0.1)
        case 2:
            return DatabaseRestart(random.randrange(shards), at, random.choice((0.05, 0.5)))
        case 3:
            return random.choice((LossyReplies(1.0, 0.0, 0.0), LossyReplies(0.3, 0.3, 0.3)))
        case 4:
            return LyingCache(random.choice((0.3, 1.0)))
        case _:
            return SlowNetwork(random.choice((0.02, 0.2)), random.choice((0.02, 0.2, 1.0)))


def _activator_fault(  # noqa: PLR0911 - one case a kind of fault
    random: Random,
) -> Fault:
    match random.randrange(8):
        case 0:
            turn = Moment("activator", "turn", random.randint(1, 60))
            return Crash(turn, random.choice((0.1, 1.0, 9.5)))
        case 1:
            turn = Moment("activator", "turn", random.randint(1, 60))
            return Pause(turn, random.uniform(1.0, 12.0))
        case 2 | 3:  # prepared, and not yet activated
            moment = Moment("activator", "commit", 1, random.uniform(0.2, 1.07))
            return Pause(moment, random.choice((random.uniform(1, 9), random.uniform(11, 14))))
        case 4:
            outcome: Outcome = random.choice(("lost before", "lost after", "late"))
            return LostStatement(
                "activator", random.randint(1, 12), "commit", outcome, _long(random)
            )
        case 5:
            outcome = random.choice(("lost before", "lost after", "late", "hung", "refused"))
            return LostProduce("activator", random.randint(1, 4), outcome, _long(random))
        case 6:
            return SlowProduce("activator", random.randint(1, 4), _long(random))
        case _:
            return SecondActivator(random.uniform(0.0, 12.0))


def _moment(random: Random, process: str) -> Moment:
    """Return any turn of a process, earlier ones more often, or just after something it does."""
    if random.random() < 0.5:
        turn = 1 + int(random.paretovariate(0.7) * random.randint(3, 40)) % 600
        return Moment(process, "turn", turn)
    event = random.choice(_EVENTS)
    after = random.choice((0.0, 0.002, 0.003, 0.005, 0.3))
    return Moment(process, event, random.randint(1, 8 if event == "commit" else 4), after)


_EVENTS: Final[tuple[Event, ...]] = ("commit", "sending commit", "produce")


def _short(random: Random) -> float:
    return 10 ** random.uniform(-2.5, 0.3)


def _long(random: Random) -> float:
    return 10 ** random.uniform(-2.0, 0.7) if random.random() < 0.85 else random.uniform(5, 12)
