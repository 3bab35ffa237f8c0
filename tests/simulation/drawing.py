"""Drawing a plan from a seed."""

from functools import cache
from random import Random

from aiokafka.partitioner import murmur2

from microfin.account_number import derive_account_number
from microfin.operation import operation_id
from simulation.plan import (
    Crash,
    DatabaseRestart,
    Fault,
    Garbage,
    GracefulStop,
    Growth,
    LossyReplies,
    LostProduce,
    LostStatement,
    LyingCache,
    Moment,
    Pause,
    Plan,
    PlannedAccount,
    PlannedClient,
    SecondActivator,
    SecondOwner,
    SlowNetwork,
    SlowProduce,
    Step,
    Tuning,
)

USERS = [letter * 32 for letter in "abc"]
_POOL = 96


@cache
def _numbers() -> list[str]:
    """Return account numbers that plans choose from."""
    return [derive_account_number(f"{number:032x}", 0) for number in range(_POOL)]


@cache
def _coming_back(counts: tuple[int, ...]) -> list[str]:
    """Return numbers whose partition is the same in the end as at first, but not in between."""
    hashes = {number: murmur2(number.encode()) & 0x7FFFFFFF for number in _numbers()}
    return [
        number
        for number, value in hashes.items()
        if value % counts[0] == value % counts[-1] and value % counts[0] != value % counts[1]
    ]


def draw_plan(seed: int) -> Plan:
    """Return the plan that `seed` stands for."""
    random = Random(f"plan {seed}")
    shards = 2 if random.random() < 0.25 else 1
    partitions = shards * random.choice((1, 2, 2)) if shards == 1 else shards
    growths = _growths(random, shards, partitions)
    accounts = _accounts(random, partitions, growths)
    apis = random.choice((1, 2, 2))
    faults = _faults(random, shards, partitions, apis, growths)
    clients = _clients(random, accounts, growths, _span(random, growths, faults))
    return Plan(
        seed=seed,
        shards=shards,
        partitions=partitions,
        apis=apis,
        tuning=_tuning(random),
        accounts=accounts,
        clients=clients,
        growths=growths,
        faults=faults,
    )


def _span(random: Random, growths: list[Growth], faults: list[Fault]) -> float:
    """Return the seconds over which clients spread their operations."""
    asleep = [
        fault.seconds + 2
        for fault in faults
        if isinstance(fault, Pause) and fault.when.process == "activator"
    ]
    if growths:
        return random.uniform(1.5, max([5.0, *asleep]))
    return random.uniform(0.0, 1.0) if random.random() < 0.9 else random.uniform(1.0, 5.0)


def _tuning(random: Random) -> Tuning:
    return Tuning(
        batch=random.choice((1, 2, 3, 8, 500)),
        memory=random.choice((0, 1, 100, 100, 100)),
        look_up_batches=random.choice((1, 1, 8, 8)),
        interval=random.choice((0.0, 0.0, 0.012)),
        answer_within=random.choice((0.3, 1.0, 5.0)),
        unknown_after=random.choice((1.5, 3.0, 10.0)),
        deadline=random.choice((60.0, 60.0, 60.0, 0.5)),
    )


def _growths(random: Random, shards: int, partitions: int) -> list[Growth]:
    if random.random() > 0.35:
        return []
    first = partitions + shards * random.choice((1, 1, 2))
    at = random.uniform(0.05, 0.6)
    growths = [Growth(at, first)]
    if random.random() < 0.4:
        growths.append(
            Growth(at + random.uniform(1.3, 2.5), first + shards * random.choice((1, 2)))
        )
    return growths


def _accounts(random: Random, partitions: int, growths: list[Growth]) -> list[PlannedAccount]:
    count = random.choice((1, 2, 2, 3, 4))
    numbers = random.sample(_numbers(), count)
    if len(growths) == 2 and random.random() < 0.5:
        numbers[0] = random.choice(
            _coming_back((partitions, *(growth.partitions for growth in growths))) or numbers
        )
    accounts = [
        PlannedAccount(
            number,
            random.choice(USERS),
            "EUR" if random.random() < 0.9 else "JPY",
            random.choice((0, 500, 1_000, 2_000, 5_000)),
        )
        for number in dict.fromkeys(numbers)
    ]
    for index in range(random.choice((0, 0, 1, 1, 2))):
        user, key = random.choice(USERS), f"open{index}"
        number = derive_account_number(operation_id(user, key, "open", ""), 0)
        if random.random() < 0.35:  # taken: the next attempt is sent on
            accounts.append(PlannedAccount(number, random.choice(USERS), "EUR", 100))
            number = derive_account_number(operation_id(user, key, "open", ""), 1)
        accounts.append(PlannedAccount(number, user, "EUR", 0, key))
    return accounts


def _clients(
    random: Random, accounts: list[PlannedAccount], growths: list[Growth], span: float
) -> list[PlannedClient]:
    clients = []
    opening = [account for account in accounts if account.opened_by]
    for number in range(random.choice((1, 2, 2, 3))):
        count = random.randint(1, 6) if span < 2 else random.randint(3, 12)
        chained = random.random() < 0.5
        own = accounts[0] if growths and random.random() < 0.5 else random.choice(accounts)
        steps = [
            _step(
                random,
                key=f"{number}.{index}",
                accounts=accounts,
                own=own,
                at_once=chained and random.random() < 0.9,
                after=_pause(random, span / count),
            )
            for index in range(count)
        ]
        if opening and random.random() < 0.8:
            steps.insert(random.randint(0, len(steps)), _open(random, opening.pop()))
        clients.append(PlannedClient(f"client-{number}", steps))
    return clients


def _pause(random: Random, mean: float) -> float:
    """Return a client's pause: none in the half of cases, so that operations come in bursts."""
    return 0.0 if random.random() < 0.5 else random.random() * 4 * mean


def _open(random: Random, account: PlannedAccount) -> Step:
    return Step(
        key=account.opened_by,
        kind="open",
        account=account.number,
        user=account.user,
        after=random.random(),
        currency="EUR",
        at_once=random.random() < 0.3,
        twice=random.random() < 0.15,
        again=random.random() < 0.15,
    )


def _step(
    random: Random,
    *,
    key: str,
    accounts: list[PlannedAccount],
    own: PlannedAccount,
    at_once: bool,
    after: float,
) -> Step:
    account = own if random.random() < 0.7 else random.choice(accounts)
    kind = random.choice(
        ("deposit", "deposit", "withdraw", "withdraw", "transfer", "transfer", "transfer")
    )
    if random.random() < 0.08:
        return Step(
            key=key,
            kind="set_state",
            account=random.choice(accounts).number,
            user="",
            after=after,
            state=random.choice(("frozen", "open", "open", "closed")),
            at_once=at_once,
        )
    return Step(
        key=key,
        kind=kind,
        account=account.number,
        user=account.user if random.random() < 0.95 else random.choice(USERS),
        after=after,
        amount=str(random.choice((1, 2, 5, 10))),
        to=random.choice(accounts).number if kind == "transfer" else "",
        at_once=at_once,
        twice=random.random() < 0.12,
        again=random.random() < 0.12,
        amended=random.random() < 0.03,
    )


def _faults(
    random: Random, shards: int, partitions: int, apis: int, growths: list[Growth]
) -> list[Fault]:
    """Draw faults: often one after the other on the same process."""
    most = max([partitions, *(growth.partitions for growth in growths)])
    faults: list[Fault] = []
    process = ""
    for _ in range(random.choice((0, 1, 1, 2, 2, 3, 4))):
        if not process or random.random() < 0.5:
            process = _process(random, most, apis, growing=bool(growths))
        if growths and process.startswith("api") and random.random() < 0.4:
            late = random.uniform(1.05, 3.0)  # across the growth
            faults.append(SlowProduce(process, random.randint(1, 6), late))
            continue
        faults += _fault_of(random, process, shards, most)
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
                    random.randint(1, 8),
                    True,
                    random.choice(("lost before", "lost after", "late", "late", "late")),
                    _short(random),
                )
            ]
        case 5:
            outcome = random.choice(("lost before", "lost after", "late", "hung"))
            return [LostStatement(process, random.randint(1, 40), False, outcome, _short(random))]
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


def _activator_fault(random: Random) -> Fault:
    match random.randrange(6):
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
            outcome = random.choice(("lost before", "lost after", "late"))
            return LostStatement("activator", random.randint(1, 12), True, outcome, _long(random))
        case _:
            return SecondActivator(random.uniform(0.0, 12.0))


def _moment(random: Random, process: str) -> Moment:
    """Return any turn of a process, earlier ones more often, or just after something it does."""
    if random.random() < 0.5:
        turn = 1 + int(random.paretovariate(0.7) * random.randint(3, 40)) % 600
        return Moment(process, "turn", turn)
    event = random.choice(("commit", "produce"))
    return Moment(process, event, random.randint(1, 8), random.choice((0.0, 0.002, 0.005, 0.3)))


def _short(random: Random) -> float:
    return 10 ** random.uniform(-2.5, 0.3)


def _long(random: Random) -> float:
    return 10 ** random.uniform(-2.0, 0.7) if random.random() < 0.85 else random.uniform(5, 12)
