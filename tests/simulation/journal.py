"""What clients asked for and what was answered, in the order of the schedule's turns."""

from collections.abc import Callable

import msgspec

from microfin.ledger.operation import Operation
from microfin.ledger.wire import Command

NOTHING_DONE = frozenset({"unavailable", "overloaded"})
"""The problems that promise that nothing was done."""


class Response(msgspec.Struct, frozen=True):
    """One answer. `kind`: `final`, `accepted`, a problem's code, or `disconnected`."""

    turn: int
    kind: str
    amended: bool
    operation: Operation | None = None
    replayed: bool = False


class Asked(msgspec.Struct):
    """One operation: the bodies that were sent under its id, since when, and all answers."""

    command: Command
    sent: int
    since: float
    amended: bool = False
    requests: int = 0
    responses: list[Response] = []

    @property
    def acknowledged(self) -> int | None:
        """The turn of the first answer that was final or a 202."""
        return self._first("final", "accepted")

    @property
    def settled(self) -> int | None:
        """The turn of the first final answer."""
        return self._first("final")

    def _first(self, *kinds: str) -> int | None:
        return next((response.turn for response in self.responses if response.kind in kinds), None)

    @property
    def nothing_was_done(self) -> bool:
        """Whether every answer said that nothing was done."""
        return len(self.responses) == self.requests and all(
            response.kind in NOTHING_DONE for response in self.responses
        )


class Journal:
    """All operations that clients asked for, by id. `turn` numbers all that happens."""

    def __init__(self, turn: Callable[[], int]) -> None:
        self.turn = turn
        self.asked: dict[str, Asked] = {}

    def ask(self, command: Command, now: float, *, amended: bool) -> Asked:
        """Note that a request is sent."""
        asked = self.asked.get(command.operation)
        if asked is None:
            asked = self.asked[command.operation] = Asked(command, self.turn(), now)
        asked.requests += 1
        asked.amended = asked.amended or amended
        return asked

    def answer(self, asked: Asked, response: Response) -> None:
        """Note an answer."""
        asked.responses.append(response)
