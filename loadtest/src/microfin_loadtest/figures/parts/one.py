"""One connection to an idle platform, against one connection of pgbench to the same server."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from microfin.ledger.routing import partition_of
from microfin_loadtest.compare.adapter import Account, Transfer
from microfin_loadtest.compare.client import Load, send
from microfin_loadtest.errors import LoadImpossible
from microfin_loadtest.figures.checkout import FOLDER
from microfin_loadtest.figures.goal import Figure, Measurement
from microfin_loadtest.figures.part import WORKERS, Part, Turn
from microfin_loadtest.figures.subject import ACCOUNTS, Subject
from microfin_local.benchmarks import pgbench


def measure(turn: Turn) -> Measurement:
    """Make deposits, transfers across partitions, and pgbench's transactions, one at a time."""
    with turn.checkout.platform(WORKERS) as endpoints:
        turn.warm_up()
        subject = Subject(turn)
        accounts = across_partitions(subject.prepare(ACCOUNTS), WORKERS)
        transfer = subject.measure(Load(1), accounts)
        deposit = send(turn.k6, FOLDER, accounts, _deposit(subject), Load(1), turn.settings.seconds)
        reasons = subject.reasons([transfer])
        if not deposit.settled or not transfer.answered.settled:
            raise LoadImpossible(f"Nothing settled; see {turn.checkout.log}.")
        yardstick = asyncio.run(_pgbench_ms(endpoints.postgres, turn.settings.seconds))
    latency = {"deposit": deposit.latency_ms, "transfer": transfer.answered.latency_ms}
    return {
        **{f"{kind}_p50_ms": figures["p50"] for kind, figures in latency.items()},
        "pgbench_ms": round(yardstick, 3),
        **{kind: round(figures["p50"] / yardstick, 2) for kind, figures in latency.items()},
        "reasons": reasons,
    }


def across_partitions(accounts: Sequence[Account], partitions: int) -> list[Account]:
    """Return two accounts of different partitions, so that each transfer between them crosses.

    Raises LoadImpossible if all are of one.
    """
    first = accounts[0]
    home = partition_of(first["number"], partitions)
    for other in accounts[1:]:
        if partition_of(other["number"], partitions) != home:
            return [first, other]
    raise LoadImpossible("All accounts are of one partition: prepare more.")


def _deposit(subject: Subject) -> Transfer:
    return replace(
        subject.transfer(),
        url=f"{subject.platform.api}/api/deposit",
        body='{"accountNumber": "<sender.number>", "amount": "0.01"}',
    )


async def _pgbench_ms(url: str, seconds: int) -> float:
    """Return the milliseconds of a transaction of `pgbench -c 1` on the platform's server."""
    await pgbench.prepare(url)
    return 1000 / await pgbench.transactions_per_second(url, seconds, clients=1)


ONE: Final = Part(
    name="one",
    about="one connection, idle platform: p50 of deposit and transfer as multiples of pgbench -c 1",
    figures=(
        Figure("deposit", "one connection, settled deposit, p50", "times pgbench -c 1", 4),
        Figure(
            "transfer", "one connection, transfer across partitions, p50", "times pgbench -c 1", 7
        ),
    ),
    measure=measure,
)
