"""Plays one round: clients move money, the nemesis breaks things, all is healed and compared."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import msgspec

from faults import ledger_reading
from faults.checker import check
from faults.clients import Clients
from faults.finding import Finding
from faults.history import History
from faults.ledger import Ledger
from faults.measuring import Measured, measure
from faults.nemesis import Injected
from faults.rest import Restless, until_drained, until_ready
from faults.schedule import Plan
from faults.stage import Stage
from microfin_local.errors import PlatformError
from microfin_tools.audit import audit

_HEAL_SECONDS: Final = 60.0
_DRAIN_SECONDS: Final = 60.0
_GROW_SECONDS: Final = 90.0
_GROW_BEGIN: Final = 1.5


class Traffic(msgspec.Struct, frozen=True):
    """How much the clients do: actions a second, seconds at least, and after the last fault."""

    rate: float = 400.0
    least_seconds: float = 16.0
    calm_seconds: float = 6.0


class Round(msgspec.Struct, kw_only=True):
    """A round as it was played."""

    plan: Plan
    history: History
    ledger: Ledger | None
    findings: list[Finding]
    measured: Measured
    seconds: float


async def play(
    stage: Stage, plan: Plan, traffic: Traffic, seed: int, say: Callable[[str], None]
) -> Round:
    """Play a round on a stage. What does not heal or drain is a finding, too."""
    began = time.monotonic()
    name = f"{seed}/{plan.round}/clients"
    clients = Clients(stage.connections, stage.accounts, traffic.rate, name)
    clients.history.unresolved = stage.unresolved
    findings: list[Finding] = []
    clients.start()
    injected = await _break(stage, plan, traffic, began, findings, say)
    ended = time.monotonic()
    await stage.nemesis.heal()
    await clients.stop(_HEAL_SECONDS)
    ledger: Ledger | None = None
    try:
        await until_ready(stage.platform, _HEAL_SECONDS)
        await until_drained(stage.platform, _DRAIN_SECONDS)
        report = await audit([stage.url], at_rest=True, since=True)
        findings += [
            Finding("audit", f"invariant {it.invariant}: {it.what}: {it.rows}")
            for it in report.violations
        ]
        ledger, stage.mark = await ledger_reading.since(stage.url, stage.mark)
        findings += check(clients.history, ledger)
    except Restless as error:
        findings.append(Finding("not healed", str(error)))
    _carry_over(stage, clients.history, ledger)
    count = plan.grow_to or plan.partitions
    return Round(
        plan=plan,
        history=clients.history,
        ledger=ledger,
        findings=findings,
        measured=measure(clients.history, injected, began, ended, count),
        seconds=time.monotonic() - began,
    )


async def _break(
    stage: Stage,
    plan: Plan,
    traffic: Traffic,
    began: float,
    findings: list[Finding],
    say: Callable[[str], None],
) -> list[Injected]:
    """Inject the faults and grow, and wait until enough calm has followed."""
    growing = asyncio.create_task(_grow(stage, plan.grow_to)) if plan.grow_to else None
    injected: list[Injected] = []
    for done in await asyncio.gather(
        *(stage.nemesis.inject(fault, began) for fault in plan.faults), return_exceptions=True
    ):
        if isinstance(done, Injected):
            injected.append(done)
        else:
            findings.append(Finding("not healed", f"{done!r}"))
    if growing is not None:
        try:
            say(f"  grew: {await growing}")
        except (PlatformError, TimeoutError) as error:
            findings.append(Finding("not grown", f"{error!r}"))
    now = time.monotonic()
    calm = max(traffic.calm_seconds, began + traffic.least_seconds - now)
    await asyncio.sleep(calm)
    return injected


async def _grow(stage: Stage, partitions: int) -> str:
    """Grow, as an operator who tries again until it is done."""
    await asyncio.sleep(_GROW_BEGIN)
    deadline = time.monotonic() + _GROW_SECONDS
    tries = 1
    while True:
        try:
            return f"{await stage.platform.grow(partitions)} at attempt {tries}"
        except (PlatformError, OSError, TimeoutError):
            if time.monotonic() > deadline:
                raise
        tries += 1
        await asyncio.sleep(1.0)


def _carry_over(stage: Stage, history: History, ledger: Ledger | None) -> None:
    """Remember what was given up and is not in the ledger: it may come in a later round."""
    decided = {leg.operation for leg in ledger.legs} if ledger is not None else set()
    stage.unresolved = [
        it
        for it in (*history.unresolved, *history.asked)
        if it.acknowledged is None and it.operation not in decided
    ]
