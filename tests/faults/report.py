"""Adds the results of many rounds up to one report, as JSON and as Markdown."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

import msgspec

from faults.measuring import Broken, Share
from faults.results import Result


class OfKind(msgspec.Struct, kw_only=True):
    """All faults of one kind. Availability and recovery are those of rounds with this fault alone.

    `settled_after` are the median and the worst seconds from the return of the component until
    every partition settled again.
    """

    name: str
    injected: int = 0
    alone: int = 0
    excused: bool = False
    operations: Share = msgspec.field(default_factory=Share)
    requests: Share = msgspec.field(default_factory=Share)
    settled_after: tuple[float, float] | None = None
    unseen: int = 0


class Report(msgspec.Struct, kw_only=True):
    """All rounds. `availability` is over single faults that are not excused, while they lasted and
    five seconds longer; `whole_rounds` over the whole rounds with such a fault."""

    seeds: list[int]
    rounds: int
    commits: list[str]
    attempted: int
    acknowledged: int
    final: int
    ambiguous: int
    abandoned: int
    requests: int
    reads: int
    findings: dict[str, int]
    availability: float | None
    request_availability: float | None
    whole_rounds: float | None
    accepted_within: float | None
    settling_after_return: float | None
    growths: int
    hours: float
    kinds: list[OfKind]


def add_up(results: Sequence[Result]) -> Report:
    """Return the report of all results."""
    kinds = _kinds(results)
    fair = [it for it in kinds if not it.excused]
    counted = ("attempted", "acknowledged", "final", "ambiguous", "abandoned", "requests", "reads")
    sums = {name: sum(getattr(it.measured, name) for it in results) for name in counted}
    return Report(
        seeds=sorted({it.seed for it in results}),
        rounds=len(results),
        commits=sorted({it.commit for it in results}),
        findings=dict(Counter(found.kind for it in results for found in it.findings)),
        availability=_share(it.operations for it in fair),
        request_availability=_share(it.requests for it in fair),
        whole_rounds=_share(it.measured.operations for it in results if _single_fair(it)),
        accepted_within=_share(it.measured.accepted for it in results if _single_fair(it)),
        settling_after_return=max(
            (it.settled_after[1] for it in kinds if it.settled_after and _returns(it.name)),
            default=None,
        ),
        growths=sum(it.plan.grow_to > 0 for it in results),
        hours=round(sum(it.seconds for it in results) / 3600, 2),
        kinds=kinds,
        **sums,
    )


def _single(result: Result) -> bool:
    return len(result.plan.faults) == 1 and not result.plan.grow_to


def _single_fair(result: Result) -> bool:
    return _single(result) and not any(it.excused for it in result.measured.faults)


def _returns(name: str) -> bool:
    """Whether it is one after which PostgreSQL, PgBouncer or a broker returns."""
    kind, _, component = name.partition(" ")
    components = ("postgres", "pgbouncer", "broker", "leader", "two brokers")
    return kind in ("kill", "stop", "absence", "freeze") and component in components


def _kinds(results: Sequence[Result]) -> list[OfKind]:
    kinds: dict[str, OfKind] = {}
    settled: dict[str, list[float]] = defaultdict(list)
    for result in results:
        for drawn, broken in zip(result.plan.faults, result.measured.faults, strict=False):
            kind = kinds.setdefault(drawn.name, OfKind(name=drawn.name))
            kind.injected += 1
            kind.excused = kind.excused or broken.excused
            if _single(result):
                _add(kind, broken, settled[drawn.name])
        if result.plan.grow_to:
            _add_growth(kinds.setdefault("growth", OfKind(name="growth")), result)
    for name, seconds in settled.items():
        if seconds:
            kinds[name].settled_after = (round(median(seconds), 2), round(max(seconds), 2))
    return sorted(kinds.values(), key=lambda it: it.name)


def _add_growth(kind: OfKind, result: Result) -> None:
    """Count a growth; it has no end of its own, so the whole round is what its clients saw."""
    kind.injected += 1
    if not result.plan.faults:
        kind.alone += 1
        kind.operations.good += result.measured.operations.good
        kind.operations.all += result.measured.operations.all


def _add(kind: OfKind, broken: Broken, settled: list[float]) -> None:
    kind.alone += 1
    for total, share in ((kind.operations, broken.operations), (kind.requests, broken.requests)):
        total.good += share.good
        total.all += share.all
    if broken.settled_after is None:
        kind.unseen += 1
    else:
        settled.append(broken.settled_after)


def _share(shares: Iterable[Share]) -> float | None:
    total = Share()
    for share in shares:
        total.good += share.good
        total.all += share.all
    return round(total.good / total.all, 5) if total.all else None


def as_markdown(report: Report) -> str:
    """Return the report for people."""
    found = ", ".join(f"{count} {kind}" for kind, count in report.findings.items()) or "none"
    fair, fair_requests = _percent(report.availability), _percent(report.request_availability)
    whole, settling = _percent(report.whole_rounds), _seconds(report.settling_after_return)
    lines = [
        "# Fault report",
        "",
        "Made by `make faults`; what the words mean is in [README.md](../README.md).",
        "",
        "| | |",
        "|---|---|",
        f"| rounds | {report.rounds} |",
        f"| seeds | {', '.join(map(str, report.seeds))} |",
        f"| commits | {', '.join(report.commits)} |",
        f"| operations attempted | {report.attempted:,} |",
        f"| acknowledged | {report.acknowledged:,} |",
        f"| ambiguous at least once | {report.ambiguous:,} |",
        f"| given up in doubt | {report.abandoned:,} |",
        f"| requests | {report.requests:,} |",
        f"| statements and balances read | {report.reads:,} |",
        f"| growths | {report.growths} |",
        f"| findings (lost, doubled, reordered, unexplained, …) | {found} |",
        f"| operations available under single faults without `*` | {fair} |",
        f"| requests available under the same | {fair_requests} |",
        f"| operations available over the whole of those rounds | {whole} |",
        f"| 202 within 5 s, over the whole of those rounds | {_percent(report.accepted_within)} |",
        f"| settling after PostgreSQL, PgBouncer or a broker returned, at worst | {settling} |",
        f"| hours | {report.hours} |",
        "",
        "| fault | injected | alone | operations | requests | settled again after | at worst |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in report.kinds:
        middle, worst = kind.settled_after or (None, None)
        lines.append(
            f"| {kind.name}{' *' if kind.excused else ''} | {kind.injected} | {kind.alone} "
            f"| {_percent(_share([kind.operations]))} | {_percent(_share([kind.requests]))} "
            f"| {_seconds(middle)} | {_seconds(worst)} |"
        )
    lines += [
        "",
        "`*`: a loss of PostgreSQL, of PgBouncer, of the broker majority or of the clients' way.",
        "Availability and recovery are those of rounds in which the fault was alone.",
        "",
    ]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.2f} %"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"
