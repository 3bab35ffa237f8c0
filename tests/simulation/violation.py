"""A broken invariant."""

import msgspec

INVARIANTS = {
    1: "zero sum",
    2: "never negative",
    3: "explained balance",
    4: "once",
    5: "acknowledged is durable",
    6: "one writer",
    7: "order",
    8: "arrival",
}
"""The names of invariants 1 to 8, as in docs/guide/invariants.md."""


class Violation(msgspec.Struct, frozen=True):
    """Which invariant is broken, and by what."""

    invariant: int
    what: str

    def __str__(self) -> str:
        return f"invariant {self.invariant} ({INVARIANTS[self.invariant]}): {self.what}"
