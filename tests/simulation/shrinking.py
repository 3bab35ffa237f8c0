"""Making a failing plan smaller, so that a person can read its history."""

import time
from collections.abc import Iterator
from typing import TypeVar

from msgspec.structs import replace

from simulation.plan import Plan, PlannedClient, Step
from simulation.world import Result, run_plan

T = TypeVar("T")

_TURNS_TRIED = 4  # a smaller plan runs differently: other turns may show the same violation


def shrink(failed: Result, seconds: float = 30.0) -> Result:
    """Return the smallest failure found that breaks the same invariant, within `seconds`."""
    deadline = time.process_time() + seconds
    invariant = failed.violations[0].invariant
    smallest, goes_on = failed, True
    while goes_on:
        goes_on = False
        for plan in _smaller(smallest.plan):
            if time.process_time() > deadline:
                return smallest
            found = _fails(plan, invariant)
            if found is not None:
                smallest, goes_on = found, True
                break
    return smallest


def _fails(plan: Plan, invariant: int) -> Result | None:
    for turns in range(_TURNS_TRIED):
        result = run_plan(replace(plan, seed=plan.seed + turns * 1_000_000_007))
        if any(violation.invariant == invariant for violation in result.violations):
            return result
    return None


def _smaller(plan: Plan) -> Iterator[Plan]:
    """Give plans with something less, the most promising ones first."""
    for index in range(len(plan.clients)):
        yield replace(plan, clients=_without(plan.clients, index))
    for index in reversed(range(len(plan.faults))):
        yield replace(plan, faults=_without(plan.faults, index))
    for index in reversed(range(len(plan.growths))):
        yield replace(plan, growths=_without(plan.growths, index))
    if plan.apis > 1:
        yield replace(plan, apis=plan.apis - 1)
    for index, client in enumerate(plan.clients):
        for steps in _smaller_steps(client.steps):
            smaller = PlannedClient(client.name, steps)
            yield replace(
                plan, clients=[*plan.clients[:index], smaller, *plan.clients[index + 1 :]]
            )
    used = {number for client in plan.clients for step in client.steps
            for number in (step.account, step.to)}  # fmt: skip
    accounts = [account for account in plan.accounts if account.number in used]
    if len(accounts) < len(plan.accounts):
        yield replace(plan, accounts=accounts)


def _smaller_steps(steps: list[Step]) -> Iterator[list[Step]]:
    half = len(steps) // 2
    if half > 1:
        yield steps[half:]
        yield steps[:half]
    for index in reversed(range(len(steps))):
        yield _without(steps, index)
    for index, step in enumerate(steps):
        plain = replace(step, twice=False, again=False, amended=False)
        if plain != step:
            yield [*steps[:index], plain, *steps[index + 1 :]]


def _without(items: list[T], index: int) -> list[T]:
    return [*items[:index], *items[index + 1 :]]
