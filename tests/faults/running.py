"""Plays many rounds, life after life, and records the result of each."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import msgspec

from faults import results
from faults.playing import Traffic, play
from faults.results import Result
from faults.schedule import LIFE, WORKERS, Fault, Plan, plan
from faults.stage import Stage
from microfin_tools.audit import audit


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be played, and where the results go.

    `faults` are played alternately, one a round, in the place of those that the seed would draw.
    `keep` retains the evidence of every round.
    """

    seed: int
    rounds: Sequence[int]
    results: Path
    evidence: Path
    accounts: int = 1_000
    traffic: Traffic = Traffic()
    faults: Sequence[Fault] = ()
    keep: bool = False

    def plan(self, number: int) -> Plan:
        """Return the plan of a round: the seed's, or one of the faults that were asked for."""
        if not self.faults:
            return plan(self.seed, number)
        return Plan(number, WORKERS, (self.faults[number % len(self.faults)],))


async def play_all(order: Order, say: Callable[[str], None]) -> list[Result]:
    """Play all rounds of the order. A platform on which a round failed is not used any more."""
    played: list[Result] = []
    commit = results.commit()
    for _, numbers in groupby(order.rounds, key=lambda number: number // LIFE):
        left = [order.plan(number) for number in numbers]
        while left:
            done = await _play_life(order, left, commit, say)
            played += done
            left = left[len(done) :]
    return played


async def _play_life(
    order: Order, plans: Sequence[Plan], commit: str, say: Callable[[str], None]
) -> list[Result]:
    """Play rounds on one platform until they are over, or one has found something."""
    say(f"a new platform with {plans[0].partitions} partitions, for at most {len(plans)} rounds")
    played: list[Result] = []
    async with Stage(plans[0].partitions, order.accounts, say) as stage:
        for this in plans:
            say(f"round {this.round}: {this.names}")
            round_ = await play(stage, this, order.traffic, order.seed, say)
            result = results.result_of(round_, order.seed, commit)
            results.append(order.results, result)
            played.append(result)
            say(f"  {in_words(result)}")
            if result.findings or order.keep:
                logs = stage.platform.configuration.logs
                place = results.keep_evidence(order.evidence, round_, order.seed, logs)
                say(f"  found {len(result.findings)}; the evidence is in {place}")
            if result.findings:
                for finding in result.findings[:10]:
                    say(f"    {finding.kind}: {finding.what[:300]} {finding.operation}")
                return played
        report = await audit([stage.url], at_rest=True)
        say(f"the whole ledger: {report.checked.operations} operations, ok: {report.ok}")
        if not report.ok:
            raise RuntimeError(f"the full audit after the last round: {report.violations}")
    return played


def in_words(result: Result) -> str:
    """Return one line on a round."""
    it = result.measured
    words = [
        f"{it.attempted} operations, {it.acknowledged} acknowledged, {it.ambiguous} ambiguous",
        f"{_percent(it.operations.good, it.operations.all)} within 5 s",
    ]
    for broken in it.faults:
        after = "?" if broken.settled_after is None else f"{broken.settled_after:.1f} s"
        words.append(
            f"{broken.name}: away {broken.down:.1f} s, settled {after} later, "
            f"{_percent(broken.operations.good, broken.operations.all)} meanwhile"
        )
    return "; ".join([*words, f"{result.seconds:.0f} s"])


def _percent(good: int, of: int) -> str:
    return f"{100 * good / of:.2f} %" if of else "nothing"
