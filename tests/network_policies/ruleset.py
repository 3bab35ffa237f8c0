"""The rules of nftables that enforce what the policies permit.

The rules judge every packet in the direction in which its connection was opened, so that a new
policy also cuts the connections that exist. Replies always pass.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from network_policies.policies import Direction, Isolation, Permission, Ports

TABLE: Final = "inet microfin-e2e-policies"
REFUSED: Final = "refused"
"""The set of refused packets: source, destination, protocol, port."""

_BEGIN: Final = f"""\
add table {TABLE}
add set {TABLE} {REFUSED} {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service; \
flags dynamic,timeout; timeout 2h; size 65535; }}
add chain {TABLE} forward {{ type filter hook forward priority mangle; policy accept; }}
add chain {TABLE} input {{ type filter hook input priority mangle; policy accept; }}
add chain {TABLE} judge
flush table {TABLE}
"""
_REMEMBER: Final = (
    f"meta l4proto {{ tcp, udp }} add @{REFUSED} "
    "{ ip saddr . ip daddr . meta l4proto . th dport }"
)
_OWN: Final = {"ingress": "daddr", "egress": "saddr"}
_PEERS: Final = {"ingress": "saddr", "egress": "daddr"}


def ruleset(isolations: Sequence[Isolation], stale: Collection[str]) -> str:
    """Return the input of `nft -f` that replaces all rules at once; `stale` chains are removed."""
    return "\n".join(_lines(isolations, stale)) + "\n"


def chains(isolations: Sequence[Isolation]) -> frozenset[str]:
    """Return the names of the chains that belong to these pods."""
    return frozenset(
        _chain(direction, it)
        for it in isolations
        for direction, permissions in _directions(it)
        if permissions is not None
    )


def _lines(isolations: Sequence[Isolation], stale: Collection[str]) -> Iterator[str]:
    now = chains(isolations)
    yield _BEGIN
    yield from (f"delete chain {TABLE} {name}" for name in sorted(set(stale) - now))
    yield from (f"add chain {TABLE} {name}" for name in sorted(now))
    for hook in ("forward", "input"):
        yield f"add rule {TABLE} {hook} meta nfproto ipv4 ct direction original jump judge"
    for direction in ("egress", "ingress"):
        jumps = [
            f"{it.pod.address} : jump {name}"
            for it in isolations
            if (name := _chain(direction, it)) in now
        ]
        if jumps:
            yield f"add rule {TABLE} judge ip {_OWN[direction]} vmap {{ {', '.join(jumps)} }}"
    for it in isolations:
        for direction, permissions in _directions(it):
            if permissions is not None:
                for rule in _rules(direction, it, permissions):
                    yield f"add rule {TABLE} {_chain(direction, it)} {rule}"


def _directions(
    isolation: Isolation,
) -> tuple[tuple[Direction, tuple[Permission, ...] | None], ...]:
    return ("egress", isolation.egress), ("ingress", isolation.ingress)


def _chain(direction: Direction, isolation: Isolation) -> str:
    return f"{direction}-{isolation.pod.address}"


def _rules(
    direction: Direction, isolation: Isolation, permissions: Sequence[Permission]
) -> Iterator[str]:
    yield f"ip {_PEERS[direction]} {isolation.pod.address} return"  # a pod reaches itself
    for permission in permissions:
        peers = tuple(_peers(_PEERS[direction], permission))
        for ports in _ports(permission.ports):
            yield " ".join((*peers, *ports, "return"))
    yield _REMEMBER
    yield "drop"


def _peers(side: str, permission: Permission) -> Iterator[str]:
    if permission.networks is not None:
        yield f"ip {side} {{ {', '.join(permission.networks)} }}"
    if permission.excluded:
        yield f"ip {side} != {{ {', '.join(permission.excluded)} }}"


def _ports(ports: tuple[Ports, ...] | None) -> Iterator[tuple[str, ...]]:
    """Yield a match for each protocol, or an empty one for everything."""
    if ports is None:
        yield ()
        return
    for protocol in sorted({it.protocol for it in ports}):
        ranges = _apart((it.first, it.last) for it in ports if it.protocol == protocol)
        yield (f"{protocol} dport {{ {', '.join(_range(*it) for it in ranges)} }}",)


def _apart(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges of the same ports that do not overlap, as sets of nftables demand."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
