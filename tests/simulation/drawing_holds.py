"""Drawing holds into a client's steps: some money is set aside, and captured, released or left."""

from random import Random

from msgspec.structs import replace

from simulation.plan import PlannedAccount, PlannedClient, Step

_DAY = 24 * 3_600_000
SHORT = 1_500
"""Milliseconds: holds that last no longer end before a schedule does."""


def with_holds(
    random: Random, clients: list[PlannedClient], accounts: list[PlannedAccount]
) -> list[PlannedClient]:
    """Return the clients, most of them with some holds between their other steps."""
    return [
        replace(client, steps=_with_holds(random, client, accounts))
        if random.random() < 0.5
        else client
        for client in clients
    ]


def _with_holds(
    random: Random, client: PlannedClient, accounts: list[PlannedAccount]
) -> list[Step]:
    steps = list(client.steps)
    for number in range(random.choice((1, 1, 2, 3))):
        account = random.choice(accounts)
        hold = Step(
            key=f"{client.name}.hold{number}",
            kind="hold",
            account=account.number,
            user=account.user,
            after=_pause(random),
            amount=str(random.choice((1, 2, 5, 10))),
            to=random.choice(("", *(it.number for it in accounts))),
            at_once=random.random() < 0.3,
            twice=random.random() < 0.12,
            again=random.random() < 0.12,
            lifetime=random.choice((100, 400, SHORT, _DAY, _DAY, _DAY)),
        )
        place = random.randint(0, len(steps))
        steps.insert(place, hold)
        for index in range(random.choice((0, 1, 1, 2, 3))):
            place = random.randint(place + 1, len(steps))
            steps.insert(place, _on_hold(random, hold, f"{hold.key}.{index}"))
    return steps


def _on_hold(random: Random, hold: Step, key: str) -> Step:
    captures = random.random() < 0.75
    return Step(
        key=key,
        kind="capture" if captures else "release",
        account=hold.account,
        user=hold.user,
        after=_pause(random),
        amount=random.choice(("", "1", "2", hold.amount)) if captures else "",
        at_once=random.random() < 0.3,
        twice=random.random() < 0.12,
        again=random.random() < 0.12,
        hold=hold.key if random.random() < 0.95 else "none",
        last=captures and random.random() < 0.3,
    )


def _pause(random: Random) -> float:
    return 0.0 if random.random() < 0.6 else random.random()
