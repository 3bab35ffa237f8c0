"""Drawing a plan from a seed."""

from functools import cache
from random import Random

from aiokafka.partitioner import murmur2

from microfin.ledger.account_number import derive_account_number
from microfin.ledger.operation import operation_id
from simulation.drawing_faults import draw_faults
from simulation.drawing_holds import with_holds
from simulation.plan import (
    Fault,
    Growth,
    Pause,
    Plan,
    PlannedAccount,
    PlannedClient,
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
    """Return the plan of `seed`."""
    random = Random(f"plan {seed}")
    shards = 2 if random.random() < 0.25 else 1
    partitions = shards * random.choice((1, 2, 2)) if shards == 1 else shards
    growths = _growths(random, shards, partitions)
    accounts = _accounts(random, partitions, growths)
    apis = random.choice((1, 2, 2))
    faults = draw_faults(random, shards, partitions, apis, growths)
    clients = _clients(random, accounts, growths, _span(random, growths, faults))
    clients = with_holds(Random(f"holds {seed}"), clients, accounts)
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
    if random.random() < 0.5:
        growths.append(
            Growth(at + random.uniform(1.3, 2.5), first + shards * random.choice((1, 2)))
        )
    return growths


def _accounts(random: Random, partitions: int, growths: list[Growth]) -> list[PlannedAccount]:
    count = random.choice((1, 2, 3, 4, 4))
    numbers = random.sample(_numbers(), count)
    if len(growths) == 2 and random.random() < 0.8:
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
        if random.random() < 0.5:  # it is in use: the next attempt is sent on
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
        at_once=random.random() < 0.6,
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
    kind = random.choice(("deposit", "deposit", "withdraw", "withdraw", *["transfer"] * 5))
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
