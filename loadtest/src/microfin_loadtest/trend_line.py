"""How a figure changes with the size of the ledger, and what follows for a larger one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

LARGEST: Final = 10**9
"""The operations that a trend is carried on to."""

Size = Mapping[str, Any]
"""What was measured at one size: `operations`, and values by their keys."""


@dataclass(frozen=True)
class Fit:
    """A value that grows with the logarithm of the operations, as the depth of an index does."""

    at_one: float
    per_decade: float

    def at(self, operations: float) -> float:
        """Return the value at this size."""
        return self.at_one + self.per_decade * math.log10(operations)


def fit(sizes: Sequence[Size], key: str) -> Fit | None:
    """Return the best line through the values of ledgers that are not empty, by least squares;
    None if there are fewer than two."""
    points = [
        (math.log10(it["operations"]), float(it[key]))
        for it in sizes
        if it["operations"] and it.get(key) is not None
    ]
    if len(points) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / sum(
        (x - mean_x) ** 2 for x, _ in points
    )
    return Fit(mean_y - slope * mean_x, slope)
