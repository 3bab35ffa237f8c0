"""What happened, in order: one line an event, written out only when somebody wants to read it."""

from collections.abc import Callable, Iterator
from typing import Any

from simulation.virtual_loop import STARTS_AT


class History:
    """The events of one schedule."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._events: list[tuple[float, str, str, tuple[Any, ...]]] = []

    def note(self, who: str, what: str, *arguments: Any) -> None:
        """Note that `who` did `what`, a format whose `{}` the arguments fill."""
        self._events.append((self._clock(), who, what, arguments))

    def __len__(self) -> int:
        return len(self._events)

    def lines(self) -> Iterator[str]:
        """Return a line for each event: seconds, who, what."""
        for time, who, what, arguments in self._events:
            shown = [short(argument) for argument in arguments]
            yield f"{time - STARTS_AT:9.4f}  {who:<12} {what.format(*shown)}"


def short(value: Any) -> Any:
    """Return ids in a length in which people see that they differ."""
    if isinstance(value, str) and len(value) == 32:
        return value[:6]
    return value
