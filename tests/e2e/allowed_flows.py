"""Who may reach whom at which port, as the tables in the charts' READMEs say it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from e2e.kubernetes_cluster import ROOT

Row = tuple[str, str, str, str]

_ANYBODY: Final = "anybody"
_NAMES: Final = {
    "Kafka": "kafka",
    "Redis": "redis",
    "shard": "postgres",
    "anybody's pods": _ANYBODY,
    "anywhere": _ANYBODY,
}
"""What microfin-data's table calls otherwise than the others."""
_ROW: Final = re.compile(r"^\| (.+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
_HEADS: Final = ("from", "pods")
_DNS_PORTS: Final = (53, 5353)


@dataclass(frozen=True)
class Flow:
    """A connection between two components."""

    source: str
    destination: str
    port: int


class AllowedFlows:
    """The tables of the three charts, put together.

    `renamed` are ports that this cluster's parts have instead of those in the tables; `unguarded`
    are components that no chart isolates in this cluster.
    """

    def __init__(self, renamed: Mapping[int, int], unguarded: frozenset[str]) -> None:
        outgoing, incoming = set(_outgoing()), set(_incoming())
        self._leaving = {_renamed(it, renamed) for it in outgoing}
        self._entering = {_renamed(it, renamed) for it in incoming}
        self._guarded = {it.source for it in outgoing} - unguarded

    def permit(self, flow: Flow) -> bool:
        """Whether both ends allow it; one that no chart isolates allows everything."""
        to_anybody = Flow(flow.source, _ANYBODY, flow.port)
        from_anybody = Flow(_ANYBODY, flow.destination, flow.port)
        leaves = flow.source not in self._guarded or {flow, to_anybody} & self._leaving
        enters = flow.destination not in self._guarded or {flow, from_anybody} & self._entering
        return bool(leaves and enters)


def data_rows() -> list[Row]:
    """Return the rows of microfin-data's table: pods, direction, peers, ports."""
    return _rows("microfin-data", "## Who talks to whom")


def flows(chart: str) -> Iterator[tuple[str, str, int]]:
    """Yield the rows of microfin's or microfin-operator's table: from, to, port."""
    for source, destination, ports, _ in _rows(chart, "## Allowed flows"):
        yield from ((source, peer, port) for peer, port in _pairs(destination, ports))


def _rows(chart: str, heading: str) -> list[Row]:
    text = (ROOT / f"charts/{chart}/INTRODUCTION.md").read_text(encoding="utf-8")
    found: list[Row] = _ROW.findall(text.partition(heading)[2].partition("\n## ")[0])
    return [row for row in found if row[0] not in _HEADS and not row[0].startswith("-")]


def _outgoing() -> Iterator[Flow]:
    for own, direction, peers, ports in data_rows():
        if direction == "to":
            yield from (Flow(_name(own), peer, port) for peer, port in _pairs(peers, ports))
    for chart in ("microfin", "microfin-operator"):
        for source, destination, port in flows(chart):
            yield Flow(source, destination, port)
            # The text below the tables says it of all components.
            yield from (Flow(source, _ANYBODY, dns) for dns in _DNS_PORTS)


def _incoming() -> Iterator[Flow]:
    for own, direction, peers, ports in data_rows():
        if direction == "from":
            yield from (Flow(peer, _name(own), port) for peer, port in _pairs(peers, ports))
    for chart in ("microfin", "microfin-operator"):
        yield from (Flow(*it) for it in flows(chart))


def _pairs(peers: str, ports: str) -> Iterator[tuple[str, int]]:
    text = peers.partition(" (")[0].removeprefix("microfin ")
    for peer in text.split(", "):
        for port in ports.partition(" (")[0].split(", "):
            yield _name(peer), int(port.removesuffix("/UDP"))


def _name(text: str) -> str:
    return _NAMES.get(text, text)


def _renamed(flow: Flow, renamed: Mapping[int, int]) -> Flow:
    return Flow(flow.source, flow.destination, renamed.get(flow.port, flow.port))
